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


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "additional_chat_templates/other.jinja",
        "model.safetensors.index.json",
        "shards/one.safetensors",
    ],
)
@pytest.mark.parametrize("folder", [False, True])
def test_a_link_out_of_the_directory_is_refused(model: Path, name: str, folder: bool) -> None:
    """Also where it is the folder of the file that is the link."""
    file, outside = model / name, model.parent / "outside"
    file.parent.mkdir(exist_ok=True)
    if name == "shards/one.safetensors":
        (model / "model.safetensors").rename(file)
        write_index(model, file, name)
    elif name == INDEX:
        write_index(model, model / "model.safetensors", "model.safetensors")
    elif not file.exists():
        file.write_text("other", encoding="utf-8")
    linked = file.parent if folder and file.parent != model else file
    linked.rename(outside)
    linked.symlink_to(outside)
    with pytest.raises(
        ModelError, match=f"{name} is a link to a file outside the model's directory"
    ) as raised:
        resolve_model(str(model), role="teacher", settings=Settings())
    assert str(file) in str(raised.value.where)
    assert raised.value.remedy is not None
    assert "copy the file" in raised.value.remedy
    with pytest.raises(ModelError, match="is a link to a file outside"):
        resolve_model(str(model), role="tokenizer", settings=Settings(), need="tokenizer")


def test_a_directory_that_is_a_link_and_links_within_it_are_accepted(model: Path) -> None:
    (model / "model.safetensors").rename(model / "stored.bin")
    (model / "model.safetensors").symlink_to("stored.bin")
    (model / "README.md").symlink_to("/etc/hostname")  # It is not loaded.
    link = model.parent / "link"
    link.symlink_to(model)
    identity = resolve_model(str(link), role="teacher", settings=Settings())
    assert identity.revision == resolve_model(str(model), role="teacher", settings=Settings()).revision
    assert load_model(identity, device="cpu").num_parameters() > 0


def test_a_snapshot_named_by_its_path_keeps_the_links_of_the_cache(tmp_path: Path, tiny_model: Path) -> None:
    snapshot = tmp_path / "hub" / "models--a--b" / "snapshots" / COMMIT
    shutil.copytree(tiny_model, snapshot)
    blobs = tmp_path / "hub" / "models--a--b" / "blobs"
    blobs.mkdir()
    (snapshot / "model.safetensors").rename(blobs / "0123")
    (snapshot / "model.safetensors").symlink_to("../../blobs/0123")
    assert resolve_model(str(snapshot), role="teacher", settings=Settings()).directory == snapshot.resolve()


@pytest.mark.parametrize("name", ["shards/one.safetensors", "../outside.safetensors", "other.bin", 3])
def test_weights_that_the_configuration_names_are_part_of_the_revision(model: Path, name: object) -> None:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    for weights, accepted in ((name, False), ("model.safetensors", True)):
        (model / "config.json").write_text(json.dumps({**config, "transformers_weights": weights}))
        if accepted:
            resolve_model(str(model), role="teacher", settings=Settings())
        else:
            with pytest.raises(ModelError, match="as weights"):
                resolve_model(str(model), role="teacher", settings=Settings())


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
