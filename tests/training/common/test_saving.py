"""Publishing a trained model replaces what earlier trainings published, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlt_data.errors import UsageError
from rlt_data.training.common import saving
from rlt_data.training.common.saving import MARKER, check_publishable, publish_model


def make_trained(folder: Path, digit: str) -> Path:
    model = folder / f"grpo-{digit * 12}" / "model"
    model.mkdir(parents=True)
    (model / MARKER).write_text("Made by rlt-data.")
    (model / "model.safetensors").write_text(f"weights {digit}")
    return model


def test_a_model_that_was_not_published_is_never_replaced(tmp_path: Path) -> None:
    trained, location = make_trained(tmp_path, "a"), tmp_path / "teacher"
    location.mkdir()
    (location / "model.safetensors").write_text("base weights")
    # A result that a user moved here is not replaced either: it may be the only copy.
    (location / MARKER).write_text("Made by rlt-data.")
    with pytest.raises(UsageError, match="set another output"):
        check_publishable(location)
    with pytest.raises(UsageError):
        publish_model(trained, location)
    assert (location / "model.safetensors").read_text() == "base weights"


@pytest.mark.parametrize("target", ["base", "absent"])
def test_a_link_that_was_not_published_is_never_replaced(tmp_path: Path, target: str) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "teacher").symlink_to(target)
    with pytest.raises(UsageError):
        publish_model(make_trained(tmp_path, "a"), tmp_path / "teacher")
    assert str((tmp_path / "teacher").readlink()) == target


def test_an_earlier_link_is_replaced_also_where_its_model_is_gone(tmp_path: Path) -> None:
    location = tmp_path / "teacher"
    first, second = make_trained(tmp_path, "a"), make_trained(tmp_path, "b")
    publish_model(first, location)
    assert location.resolve() == first.resolve()
    first.rename(tmp_path / "elsewhere")
    publish_model(second, location)
    assert (location / "model.safetensors").read_text() == "weights b"


def test_an_earlier_copy_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_links(*arguments: object, **options: object) -> None:
        raise OSError("this system has no links")

    monkeypatch.setattr(saving.Path, "symlink_to", refuse_links)
    location = tmp_path / "teacher"
    location.mkdir()
    for digit in ("a", "b"):
        publish_model(make_trained(tmp_path, digit), location)
        assert not location.is_symlink()
        assert (location / "model.safetensors").read_text() == f"weights {digit}"
    assert {path.name for path in tmp_path.iterdir()} == {"teacher", "grpo-" + "a" * 12, "grpo-" + "b" * 12}
