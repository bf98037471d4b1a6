"""Check what a model's configuration says before any framework reads it: sizes, and files that it names."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlt_data.errors import ModelError
from rlt_data.models.files import read_json

MOST_SIZES: Mapping[str, int] = {
    "num_attention_heads": 100_000,
    "num_key_value_heads": 100_000,
    "num_hidden_layers": 10_000,
    "hidden_size": 10_000_000,
    "head_dim": 10_000_000,
    "intermediate_size": 100_000_000,
    "vocab_size": 100_000_000,
    "max_position_embeddings": 1_000_000_000,
}
"""Largest plausible sizes of a model; real ones are smaller by orders of magnitude."""

_SIZES = {**MOST_SIZES, "n_layer": 10_000, "n_head": 100_000, "n_embd": 10_000_000, "n_inner": 100_000_000}

# Numbers that transformers reads without a check, and blames on whatever it was loading.
_NUMBERS = (
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "norm_eps",
    "rope_theta",
    "initializer_range",
    "attention_dropout",
)


def check_config(directory: Path) -> None:
    """Check `config.json` in `directory`; an adapter has none.

    Raises `ModelError` where it or the generation configuration is not a JSON object, where a size is not
    plausible or a number not finite, and where it names weights that are not part of the model's identity.
    """
    # transformers ignores a generation configuration that it cannot read, and the end tokens in it.
    if (generation := directory / "generation_config.json").is_file():
        read_json(generation)
    file = directory / "config.json"
    if not file.is_file():
        return
    raw = read_json(file)
    inner = raw.get("text_config")
    for config in (raw, inner if isinstance(inner, dict) else {}):
        for name, most in _SIZES.items():
            value = config.get(name)
            # A value of another kind is refused by name when the configuration is used.
            if isinstance(value, int | float) and not 1 <= value <= most:
                raise ModelError(
                    f"{name} should be from 1 to {most:,}, found {_shorten(value)}",
                    where=str(file),
                    remedy="copy config.json again from the model that it belongs to",
                )
        for name in _NUMBERS:
            if isinstance(config.get(name), str | bool):
                raise ModelError(
                    f"{name} should be a number, found {_shorten(config[name])}",
                    where=str(file),
                    remedy="copy config.json again from the model that it belongs to",
                )
        end = config.get("eos_token_id")
        if any(
            type(token) is not int for token in (end if isinstance(end, list) else [end]) if end is not None
        ):
            raise ModelError(
                f"eos_token_id should be the number of a token, or a list of such, found {_shorten(end)}",
                where=str(file),
                remedy="set it to the end token of the model's tokenizer",
            )
    if infinite := _find_infinite(raw):
        raise ModelError(
            f"{infinite} is not a finite number",
            where=str(file),
            remedy="copy config.json again from the model that it belongs to",
        )
    weights = raw.get("transformers_weights")
    if weights is not None and (
        not isinstance(weights, str) or Path(weights).name != weights or not weights.endswith(".safetensors")
    ):
        raise ModelError(
            f"the configuration names {_shorten(weights)} as weights, and only *.safetensors files in the "
            "model's directory are ever loaded",
            where=str(file),
            remedy="remove transformers_weights from this file",
        )


def _find_infinite(config: Mapping[str, Any]) -> str | None:
    """Find the first key with a number that is not finite; lists may have them, as limits."""
    for name, value in config.items():
        if isinstance(value, float) and not math.isfinite(value):
            return name
        if isinstance(value, dict) and (inner := _find_infinite(value)):
            return f"{name}.{inner}"
    return None


def _shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
