"""A temperature put into a model's weights, for an engine that scores prompts without one.

Logits are the output layer applied to the normed hidden state, and the norm multiplies by its weight last;
so dividing that weight by T divides every logit by T. It is exact but for the rounding of the weight's
type, which is float32 here where the engine computes in float32.
"""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

from rlt_data.errors import ModelError
from rlt_data.models.config import read_model_config
from rlt_data.models.identity import ModelIdentity

NORM = "model.norm.weight"
SCALABLE = frozenset(
    {
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen2MoeForCausalLM",
        "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM",
    }
)
"""Architectures whose last norm is a plain RMSNorm without bias, followed by the output layer alone."""

_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def check_scalable(identity: ModelIdentity, temperature: float) -> None:
    """Find out whether `temperature` can be put into a model's weights, without touching them.

    Raises `ModelError` for a LoRA adapter, and where the architecture is not known to allow it or the last
    norm is not found.
    """
    if temperature == 1.0:
        return
    if identity.base is not None:
        raise ModelError(
            "prompt_logprobs ignore the temperature, and it cannot be put into a LoRA adapter",
            where=identity.model,
            remedy="merge the adapter, score with --backend torch, or at --temperature 1",
        )
    architecture = read_model_config(identity).architecture
    if architecture not in SCALABLE:
        raise ModelError(
            f"prompt_logprobs ignore the temperature, and how to put it into a {architecture} is not known",
            where=identity.model,
            remedy="score with --backend torch, or at --temperature 1",
        )
    _find_file(identity.require_directory())


def write_scaled_copy(model: Path, directory: Path, temperature: float, *, dtype: str) -> Path:
    """Make `directory` a copy of `model` whose logits are divided by `temperature`; see `check_scalable`.

    Every file but the one that holds the last norm is a link. `dtype` is the type that the engine computes
    in; the norm is written in float32 where that is float32, else in the type it has.

    Raises `ModelError` where no file holds the last norm.
    """
    file = _find_file(model)
    directory.mkdir(parents=True, exist_ok=True)
    for path in model.iterdir():
        if path != file:
            (directory / path.name).symlink_to(path.resolve())
    _rewrite_norm(file, directory / file.name, temperature, widen=dtype == "float32")
    return directory


def _find_file(model: Path) -> Path:
    """The safetensors file that holds the last norm."""
    index = model / "model.safetensors.index.json"
    if index.is_file():
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if NORM in weight_map:
            return model / str(weight_map[NORM])
    for path in sorted(model.glob("*.safetensors")):
        with path.open("rb") as stream:
            if NORM in _read_header(stream)[0]:
                return path
    raise ModelError(f"no safetensors file holds {NORM}", where=str(model), remedy="--backend torch")


def _read_header(stream: Any) -> tuple[dict[str, Any], int]:
    """Read a safetensors header and where the data begins."""
    (length,) = struct.unpack("<Q", stream.read(8))
    return json.loads(stream.read(length)), 8 + length


def _rewrite_norm(source: Path, target: Path, temperature: float, *, widen: bool) -> None:
    import torch

    with source.open("rb") as reading:
        header, begin = _read_header(reading)
        entry = header[NORM]
        start, end = entry["data_offsets"]
        reading.seek(begin + start)
        saved = getattr(torch, _TYPES[entry["dtype"]])
        weight = torch.frombuffer(bytearray(reading.read(end - start)), dtype=saved).double() / temperature
        if widen:
            entry["dtype"] = "F32"
        kept = getattr(torch, _TYPES[entry["dtype"]])
        data = weight.to(kept).view(torch.uint8).numpy().tobytes()
        grown = len(data) - (end - start)
        for name, other in header.items():
            if name != "__metadata__" and other["data_offsets"][0] >= end:
                other["data_offsets"] = [offset + grown for offset in other["data_offsets"]]
        entry["data_offsets"] = [start, start + len(data)]
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with target.open("wb") as writing:
            writing.write(struct.pack("<Q", len(text)) + text)
            reading.seek(begin)
            _copy(reading, writing, start)
            writing.write(data)
            reading.seek(begin + end)
            shutil.copyfileobj(reading, writing, 1 << 24)


def _copy(reading: Any, writing: Any, count: int) -> None:
    while count:
        block = reading.read(min(count, 1 << 24))
        writing.write(block)
        count -= len(block)
