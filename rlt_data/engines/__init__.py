"""Engines generate text from prompts. Importing this package imports no torch, vLLM or HTTP client."""

from rlt_data.engines.base import (
    Completion,
    Engine,
    EngineOptions,
    FailedRequest,
    GenerationRequest,
    SamplingParameters,
    derive_sample_seed,
)
from rlt_data.engines.opening import ENGINE_HELP, EngineName, open_engine

__all__ = [
    "ENGINE_HELP",
    "Completion",
    "Engine",
    "EngineName",
    "EngineOptions",
    "FailedRequest",
    "GenerationRequest",
    "SamplingParameters",
    "derive_sample_seed",
    "open_engine",
]
