"""Generation by transformers on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rlt_data.engines.base import (
    Completion,
    EngineOptions,
    FailedRequest,
    GenerationRequest,
    SamplingParameters,
)
from rlt_data.models.identity import ModelIdentity


class TransformersEngine:
    """An engine over a transformers causal language model."""

    name = "transformers"
    logprob_mode = "processed"
    version: str
    dtype: str

    def __init__(self, identity: ModelIdentity, options: EngineOptions) -> None:
        self._identity = identity
        self._options = options

    def generate(
        self, requests: Iterable[GenerationRequest], sampling: SamplingParameters
    ) -> Iterator[Completion | FailedRequest]:
        """Answer every request once, each as soon as it is finished."""
        raise NotImplementedError

    def close(self) -> None:
        """Free the model."""
