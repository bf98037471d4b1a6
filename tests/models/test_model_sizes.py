"""Sizes in `config.json` that no model has, and files that are not JSON: a plain message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlt_data.errors import ModelError
from rlt_data.models.config import read_config_file

CONFIG: dict[str, Any] = {
    "num_attention_heads": 4,
    "hidden_size": 64,
    "vocab_size": 100,
    "num_hidden_layers": 2,
    "max_position_embeddings": 128,
}


def read(folder: Path, **changes: Any) -> Any:
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    return read_config_file(folder)


def test_a_plausible_model_is_read(tmp_path: Path) -> None:
    config = read(tmp_path, num_key_value_heads=None)
    assert (config.layers, config.key_value_heads, config.head_dimension, config.context) == (2, 4, 16, 128)


@pytest.mark.parametrize("value", [10**9, 10**30, 0, -1, 1.5, "many", None, [], {}, 1e308, float("inf")])
@pytest.mark.parametrize("name", ["num_hidden_layers", "num_attention_heads", "vocab_size", "hidden_size"])
def test_a_size_that_no_model_has_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(ModelError, match="not the configuration of a decoder language model") as raised:
        read(tmp_path, **{name: value})
    assert raised.value.where == str(tmp_path / "config.json")
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("value", ["x", [1], {"a": 1}])
def test_a_context_that_is_no_number_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ModelError):
        read(tmp_path, max_position_embeddings=value)


def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="nested too deeply"):
        read_config_file(tmp_path)


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(ModelError, match="not a file"):
        read_config_file(tmp_path)
