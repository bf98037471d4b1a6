"""Everything that is loaded is part of a model's identity: no index and no link leads out of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rlt_data.errors import ModelError
from rlt_data.models import describe_models, load_model, resolve_model
from rlt_data.models.fingerprint import hash_model_directory
from rlt_data.settings import ModelSettings, Settings

COMMIT = "0123456789abcdef0123456789abcdef01234567"
INDEX = "model.safetensors.index.json"


def write_index(model: Path, weights: Path, name: str) -> None:
    """Replace the weights of `model` by an index that names them as `name`."""
    from safetensors import safe_open

    with safe_open(weights, "pt") as tensors:
        weight_map = dict.fromkeys(tensors.keys(), name)
    (model / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "folder" / "model")


@pytest.mark.parametrize("name", ["../outside.safetensors", "{absolute}", "shards/../../outside.safetensors"])
def test_an_index_that_leads_out_of_the_directory_is_refused(model: Path, name: str) -> None:
    outside = model.parent / "outside.safetensors"
    (model / "model.safetensors").rename(outside)
    (model / "shards").mkdir()
    write_index(model, outside, name.format(absolute=outside))
    with pytest.raises(ModelError, match="outside the model's directory") as caught:
        resolve_model(str(model), role="teacher", settings=Settings())
    assert caught.value.where == str(model / INDEX)


@pytest.mark.parametrize("names", [["weights.bin"], "weights.bin", {"x": 3}])
def test_an_index_that_names_no_safetensors_is_refused(model: Path, names: object) -> None:
    weight_map = {"x": names[0]} if isinstance(names, list) else names
    (model / "weights.bin").write_bytes(b"\x80\x04")
    (model / INDEX).write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"safetensors files are ever loaded|no weight_map"):
        resolve_model(str(model), role="teacher", settings=Settings())


def test_files_below_the_directory_are_part_of_the_revision(model: Path) -> None:
    (model / "shards").mkdir()
    weights = (model / "model.safetensors").rename(model / "shards" / "one.safetensors")
    write_index(model, weights, "shards/one.safetensors")
    identity = resolve_model(str(model), role="teacher", settings=Settings())
    assert load_model(identity, device="cpu").num_parameters() > 0
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert resolve_model(str(model), role="teacher", settings=Settings()).revision != identity.revision


def test_a_link_counts_as_the_file_that_it_leads_to(model: Path, tiny_model: Path) -> None:
    outside = (model / "model.safetensors").rename(model.parent / "outside.safetensors")
    (model / "model.safetensors").symlink_to(outside)
    assert hash_model_directory(model) == hash_model_directory(tiny_model)


def test_a_template_that_transformers_prefers_is_part_of_the_revision(model: Path) -> None:
    before = hash_model_directory(model)
    folder = model / "additional_chat_templates"
    folder.mkdir()
    (folder / "default.jinja").write_text("other", encoding="utf-8")
    assert hash_model_directory(model) != before


def test_trusted_code_is_part_of_the_revision(model: Path) -> None:
    def revise(*, trusted: bool) -> str | None:
        models = {"own": ModelSettings(model=str(model), trust_remote_code=trusted)}
        return resolve_model("own", role="teacher", settings=Settings(models=models)).revision

    (model / "modeling.py").write_text("one = 1\n", encoding="utf-8")
    plain, trusted = revise(trusted=False), revise(trusted=True)
    (model / "modeling.py").write_text("one = 2\n", encoding="utf-8")
    assert revise(trusted=False) == plain
    assert revise(trusted=True) != trusted


def test_a_snapshot_is_linked_to_its_own_blobs_alone(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "hub" / "models--a--b"
    snapshot = folder / "snapshots" / COMMIT
    shutil.copytree(tiny_model, snapshot)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "blobs").mkdir()
    weights = snapshot / "model.safetensors"
    blob = weights.rename(folder / "blobs" / "0123")
    weights.symlink_to(Path("../../blobs/0123"))
    assert resolve_model("a/b", role="teacher", settings=Settings()).revision == COMMIT
    outside = blob.rename(tmp_path / "outside.safetensors")
    weights.unlink()
    weights.symlink_to(outside)
    with pytest.raises(ModelError, match=r"model\.safetensors is a link to a file outside"):
        resolve_model("a/b", role="teacher", settings=Settings())


def test_pickled_weights_of_an_adapter_are_never_loaded(tmp_path: Path, tiny_model: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"base_model_name_or_path": str(tiny_model), "peft_type": "LORA"}
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04")
    # peft would load the pickle beside it, since this is not a name that it knows.
    shutil.copy(tiny_model / "model.safetensors", adapter / "other.safetensors")
    with pytest.raises(ModelError, match=r"pickled weights are never loaded \(adapter_model\.bin\)"):
        resolve_model(str(adapter), role="teacher", settings=Settings())


def test_the_list_of_models_shows_a_damaged_index(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--a--b" / "snapshots" / COMMIT
    shutil.copytree(tiny_model, snapshot)
    (snapshot / INDEX).write_text('{"weight_map": {"x": "../y.safetensors"}}', encoding="utf-8")
    settings = Settings(models={"own": ModelSettings(model="a/b", revision=COMMIT)})
    assert {line.alias: line.state for line in describe_models(settings)}["own"] == "unreadable"
