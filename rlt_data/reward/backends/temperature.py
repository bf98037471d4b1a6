"""A temperature divided into a model's weights, for an engine that scores prompts without one.

Logits are the output layer applied to the normalized hidden state, and the norm multiplies by its weight
last; so dividing that weight by T divides every logit by T, exactly up to the rounding of the weight's
type. The weight is stored in float32 if the engine computes in float32.
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
    """Check that `temperature` can be divided into a model's weights, without changing them.

    Raises `ModelError` for a LoRA adapter, an architecture that is not in `SCALABLE`, or weights without the
    last norm.
    """
    if temperature == 1.0:
        return
    if identity.base is not None:
        raise ModelError(
            "vLLM ignores the temperature for prompt_logprobs, and it cannot be divided into a LoRA adapter",
            where=identity.model,
            remedy="merge the adapter, score with --backend torch, or at --temperature 1",
        )
    architecture = read_model_config(identity).architecture
    if architecture not in SCALABLE:
        raise ModelError(
            "vLLM ignores the temperature for prompt_logprobs, and it cannot be divided into the weights of "
            f"{architecture}",
            where=identity.model,
            remedy="score with --backend torch, or at --temperature 1",
        )
    _find_file(identity.require_directory())


def write_scaled_copy(model: Path, directory: Path, temperature: float, *, dtype: str) -> Path:
    """Write to `directory` a copy of `model` whose logits are divided by `temperature`.

    Every file but the one with the last norm is a link. `dtype` is the type in which the engine computes;
    if it is float32, so is the written norm, else the norm keeps its type. Call `check_scalable` first.

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
    """Find the safetensors file with the last norm."""
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
    """Read a safetensors header and the offset of the data."""
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
