"""Settings: where they are found, and how a mistake in them is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlt_data.errors import UsageError
from rlt_data.settings import Settings, find_settings_file, load_settings


def write(directory: Path, text: str) -> Path:
    path = directory / "rlt-data.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_settings_are_found_upward_and_paths_are_relative_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'lake = "data/lake"\n[models.mine]\nmodel = "./weights"\n[models.other]\nmodel = "a/b"\n'
    path = write(tmp_path, text)
    inner = tmp_path / "some" / "where"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    settings = load_settings()
    assert settings.path == path.resolve()
    assert settings.lake_uri == str(tmp_path / "data/lake")
    assert settings.resolve_path(settings.models["mine"].model) == str(tmp_path / "weights")
    assert settings.resolve_path(settings.models["other"].model) == "a/b"
    assert find_settings_file(inner) == path


def test_no_settings_file_is_empty_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("text", "line", "what", "remedy"),
    [
        ('lake = "x"\n\n[model.a]\nmodel = "b"\n', 3, "unknown key 'model'", "did you mean 'models'?"),
        ("[models.a]\nmodl = 'b'\nmodel = 'c'\n", 2, "unknown key 'models.a.modl'", "did you mean 'model'?"),
        ("[models]\na = { modle = 'b', model = 'c' }\n", 2, "unknown key 'models.a.modle'", "'model'?"),
        ("[models.a]\nrevision = 'b'\n", 1, "the key 'models.a.model' is missing", "add model"),
        ("# note\nlake = 3\n", 2, "'lake': input should be a valid string, found 3", None),
        ("lake = 'x'\nmodels = [\n", 2, "not valid TOML: Invalid value", "correct the line"),
        ("lake = 'x'\nmodels = = 1\n", 2, "not valid TOML", "correct the line"),
        ("[models.a]\nzzz = 1\nmodel = 'c'\n", 2, "unknown key 'models.a.zzz'", "use one of: about, model, "),
    ],
)
def test_a_mistake_names_file_line_and_remedy(
    tmp_path: Path, text: str, line: int, what: str, remedy: str | None
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_settings(path)
    assert what in caught.value.what
    assert caught.value.where is not None
    assert caught.value.where == f"{path}:{line}"
    assert remedy is None or (caught.value.remedy and remedy in caught.value.remedy)


def test_every_mistake_is_listed(tmp_path: Path) -> None:
    path = write(tmp_path, "lakes = 'x'\nother = 1\n")
    with pytest.raises(UsageError) as caught:
        load_settings(path)
    assert f"unknown key 'other' ({path}:2)" in caught.value.what
