"""Fixtures for engines: a tiny model that vLLM has kernels for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlt_data.engines import EngineOptions
from rlt_data.engines.vllm.availability import explain_unusable
from rlt_data.models import resolve_model
from rlt_data.settings import Settings


@pytest.fixture(scope="session")
def vllm_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny random Qwen2 model with one head of size 32; skipped where vLLM cannot run.

    Its generation configuration holds sampling defaults, as real models do; none may take effect.
    """
    pytest.importorskip("transformers")
    from tiny_models import save_tiny_model

    shape = {"num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 4096}
    directory = save_tiny_model(tmp_path_factory.mktemp("models") / "vllm", **shape)
    file = directory / "generation_config.json"
    defaults = {"do_sample": True, "repetition_penalty": 1.9, "temperature": 3.0, "top_k": 1, "top_p": 0.1}
    file.write_text(json.dumps({**json.loads(file.read_text()), **defaults}))
    reason = explain_unusable(
        resolve_model(str(directory), role="teacher", settings=Settings()), EngineOptions()
    )
    if reason is not None:
        pytest.skip(f"vLLM cannot run here: {reason}")
    return directory
