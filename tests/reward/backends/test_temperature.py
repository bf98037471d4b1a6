"""A copy of a model whose logits are divided by a temperature."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlt_data.errors import ModelError
from rlt_data.models import ModelIdentity, load_model, resolve_model
from rlt_data.reward.backends.temperature import NORM, check_scalable, write_scaled_copy
from rlt_data.settings import Settings

IDS = torch.tensor([[5, 17, 200, 3, 44, 9]])


def read_logits(directory: Path) -> torch.Tensor:
    # The copy is never resolved by its path: it contains links.
    identity = ModelIdentity("student", "x", str(directory), "revision", directory)
    with torch.no_grad():
        return load_model(identity, dtype="float32", device="cpu")(IDS).logits


@pytest.mark.parametrize("temperature", [0.7, 1.3])
@pytest.mark.parametrize("saved", [torch.float32, torch.bfloat16])
def test_logits_of_the_copy_are_divided(
    tiny_model: Path, tmp_path: Path, temperature: float, saved: torch.dtype
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    weights = {name: weight.to(saved) for name, weight in load_file(model / "model.safetensors").items()}
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    copy = write_scaled_copy(model, tmp_path / "copy", temperature, dtype="float32")
    assert torch.allclose(read_logits(copy), read_logits(model) / temperature, atol=1e-5)
    written = load_file(copy / "model.safetensors")
    assert written[NORM].dtype == torch.float32
    assert all(torch.equal(written[name], weight) for name, weight in weights.items() if name != NORM)
    assert (copy / "config.json").is_symlink()


def test_the_type_is_kept_where_the_engine_computes_in_it(tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    weights = {n: weight.bfloat16() for n, weight in load_file(model / "model.safetensors").items()}
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    copy = write_scaled_copy(model, tmp_path / "copy", 0.7, dtype="bfloat16")
    norm = load_file(copy / "model.safetensors")[NORM]
    assert norm.dtype == torch.bfloat16
    assert torch.equal(norm, (weights[NORM].double() / 0.7).bfloat16())


def test_only_the_file_with_the_norm_is_copied(tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    parts = {"a.safetensors": [name for name in weights if name != NORM], "b.safetensors": [NORM]}
    for file, names in parts.items():
        save_file({name: weights[name] for name in names}, model / file, metadata={"format": "pt"})
    files = {name: file for file, names in parts.items() for name in names}
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    copy = write_scaled_copy(model, tmp_path / "copy", 0.5, dtype="float32")
    assert (copy / "a.safetensors").is_symlink()
    assert not (copy / "b.safetensors").is_symlink()
    assert torch.allclose(load_file(copy / "b.safetensors")[NORM], weights[NORM] / 0.5)


def test_an_unverified_architecture_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"architectures": ["Gemma2ForCausalLM"]}))
    identity = resolve_model(str(model), role="student", settings=Settings())
    with pytest.raises(ModelError, match="ignores the temperature") as caught:
        check_scalable(identity, 0.7)
    assert "--backend torch" in str(caught.value)
    check_scalable(identity, 1.0)
