"""Engines: where text comes from. Importing this package imports no torch, vLLM or HTTP client."""

from rlt_data.engines.base import (
    Completion,
    Engine,
    EngineName,
    EngineOptions,
    FailedRequest,
    GenerationRequest,
    SamplingParameters,
    derive_sample_seed,
)
from rlt_data.engines.opening import open_engine

__all__ = [
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
