"""Sources of log-probabilities, opened when they are needed, one engine at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from rlt_data.formats.definition import ConversationFormat
from rlt_data.models import ModelIdentity, load_tokenizer
from rlt_data.reward.backends.base import LogprobBackend
from rlt_data.reward.backends.prompt_scorer import PromptScorer
from rlt_data.reward.backends.temperature import check_scalable
from rlt_data.reward.scoring.loading import ModelCache
from rlt_data.reward.tokenizers import refuse_other_tokens


class BackendCache:
    """Opens backends for one backend. An engine stays open until another is needed: two seldom fit.

    With `openai`, only students are behind the server; a teacher runs here, on the models of `local`.
    """

    def __init__(
        self,
        backend: Literal["vllm", "openai"],
        local: ModelCache,
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
        self._open: tuple[tuple[str, float], LogprobBackend] | None = None

    def open_scorer(
        self,
        format: ConversationFormat,
        students: Sequence[tuple[ModelIdentity, float]],
        teacher: tuple[ModelIdentity, float] | None,
    ) -> PromptScorer:
        """Make a scorer for models, each with its temperature.

        Raises, before any of them runs, `UsageError` where teacher and student cut text into different
        tokens, and `ModelError` where a temperature cannot be put into a model's weights.
        """
        for student, temperature in students:
            if teacher is not None:
                refuse_other_tokens(
                    load_tokenizer(teacher[0]), load_tokenizer(student), where=f"student {student.name}"
                )
            if self._backend == "vllm":
                check_scalable(student, temperature)
        if teacher is not None and self._backend == "vllm":
            check_scalable(*teacher)
        served = [partial(self._lend, student, temperature, "student") for student, temperature in students]
        scorer = PromptScorer(
            format, served, partial(self._lend, *teacher, "teacher") if teacher is not None else None
        )
        inexact = [t for _, t in [*students, *([teacher] if teacher else [])] if math.frexp(t)[0] != 0.5]
        if self._backend == "vllm" and self._dtype != "float32" and inexact:
            scorer.notes.append(
                f"temperature {inexact[0]:g} stands in {self._dtype} weights, up to their rounding: it is "
                "exact with --dtype float32, or --backend torch"
            )
        return scorer

    def close(self) -> None:
        """End the engine that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    @contextmanager
    def _lend(self, identity: ModelIdentity, temperature: float, role: str) -> Iterator[LogprobBackend]:
        if self._backend == "openai" and role == "teacher":
            from rlt_data.reward.backends.torch import TorchBackend

            yield TorchBackend(self._local.load(identity, temperature), memory=self._memory)
            return
        key = (identity.content_key, temperature)
        if self._open is None or self._open[0] != key:
            self.close()
            self._open = key, self._make(identity, temperature)
        yield self._open[1]

    def _make(self, identity: ModelIdentity, temperature: float) -> LogprobBackend:
        if self._backend == "openai":
            from rlt_data.reward.backends.openai import ServerBackend

            return ServerBackend(identity, temperature, options=self._options)
        from rlt_data.reward.backends.vllm import VllmBackend

        return VllmBackend(
            identity,
            temperature,
            dtype=self._dtype,
            device=self._device,
            memory_bytes=self._memory,
            options=self._options,
        )
