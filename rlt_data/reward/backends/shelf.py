"""Sources of log-probabilities, opened when they are needed, one engine at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from rlt_data.formats.definition import ConversationFormat
from rlt_data.models import ModelIdentity
from rlt_data.reward.backends.prompt_scorer import PromptScorer
from rlt_data.reward.backends.source import TokenSource
from rlt_data.reward.loading import ModelShelf


class SourceShelf:
    """Opens sources for one backend. An engine stays open until another is needed: two seldom fit.

    With `openai`, only students are behind the server; a teacher runs here, on the models of `local`.
    """

    def __init__(
        self,
        backend: Literal["vllm", "openai"],
        local: ModelShelf,
        *,
        dtype: str,
        device: str,
        memory: int | None,
        options: Mapping[str, Any],
    ) -> None:
        self._backend = backend
        self._local = local
        self._dtype = dtype
        self._device = device
        self._memory = memory
        self._options = options
        self._open: tuple[tuple[str, float], TokenSource] | None = None

    def open_scorer(
        self,
        format: ConversationFormat,
        students: Sequence[tuple[ModelIdentity, float]],
        teacher: tuple[ModelIdentity, float] | None,
    ) -> PromptScorer:
        """Make a scorer for models, each with its temperature."""
        served = [partial(self._lend, student, temperature, "student") for student, temperature in students]
        return PromptScorer(
            format, served, partial(self._lend, *teacher, "teacher") if teacher is not None else None
        )

    def close(self) -> None:
        """End the engine that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    @contextmanager
    def _lend(self, identity: ModelIdentity, temperature: float, role: str) -> Iterator[TokenSource]:
        if self._backend == "openai" and role == "teacher":
            from rlt_data.reward.backends.torch import TorchSource

            yield TorchSource(self._local.take(identity, temperature), memory=self._memory)
            return
        key = (identity.content_key, temperature)
        if self._open is None or self._open[0] != key:
            self.close()
            self._open = key, self._make(identity, temperature)
        yield self._open[1]

    def _make(self, identity: ModelIdentity, temperature: float) -> TokenSource:
        if self._backend == "openai":
            from rlt_data.reward.backends.openai import ServerSource

            return ServerSource(identity, temperature, options=self._options)
        from rlt_data.reward.backends.vllm import VllmSource

        return VllmSource(
            identity,
            temperature,
            dtype=self._dtype,
            device=self._device,
            memory_bytes=self._memory,
            options=self._options,
        )
