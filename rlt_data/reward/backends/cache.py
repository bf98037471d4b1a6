"""Backends opened on demand, one engine at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from rlt_data.formats.definition import ConversationFormat
from rlt_data.models import ModelIdentity, load_tokenizer
from rlt_data.reward.backends.base import LogprobBackend
from rlt_data.reward.backends.opening import BACKENDS, BackendName, BackendSettings
from rlt_data.reward.backends.prompt_scorer import PromptScorer
from rlt_data.reward.backends.temperature import check_scalable
from rlt_data.reward.scoring.loading import ModelCache
from rlt_data.reward.tokenizers import refuse_other_tokens


class BackendCache:
    """Opens models in one backend. An engine stays open until another is needed: two rarely fit in memory.

    Where students are served, the teacher runs in this process, on the models of `local`.
    """

    def __init__(self, backend: BackendName, local: ModelCache, settings: BackendSettings) -> None:
        self._entry = BACKENDS[backend]
        self._local = local
        self._settings = settings
        self._open: tuple[tuple[str, float], LogprobBackend] | None = None

    def open_scorer(
        self,
        format: ConversationFormat,
        students: Sequence[tuple[ModelIdentity, float]],
        teacher: tuple[ModelIdentity, float] | None,
    ) -> PromptScorer:
        """Make a scorer for models, each with its temperature.

        Raises, before any of them runs, `UsageError` where teacher and student split text into different
        tokens, and `ModelError` where a temperature cannot be divided into a model's weights.
        """
        models = [*students, *([teacher] if teacher is not None else [])]
        if teacher is not None:
            for student, _ in students:
                refuse_other_tokens(
                    load_tokenizer(teacher[0]), load_tokenizer(student), where=f"student {student.name}"
                )
        if self._entry.scales_weights:
            for identity, temperature in models:
                check_scalable(identity, temperature)
        scorer = PromptScorer(
            format,
            [partial(self._lend, student, temperature) for student, temperature in students],
            partial(self._lend_teacher, *teacher) if teacher is not None else None,
        )
        inexact = [temperature for _, temperature in models if math.frexp(temperature)[0] != 0.5]
        if self._entry.scales_weights and self._settings.dtype != "float32" and inexact:
            scorer.notes.append(
                f"temperature {inexact[0]:g} is divided into {self._settings.dtype} weights and rounded with "
                "them; --dtype float32 or --backend torch is exact"
            )
        return scorer

    def close(self) -> None:
        """Close the engine that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    @contextmanager
    def _lend(self, identity: ModelIdentity, temperature: float) -> Iterator[LogprobBackend]:
        key = (identity.content_key, temperature)
        if self._open is None or self._open[0] != key:
            self.close()
            assert self._entry.open is not None, "torch needs no other backend"
            self._open = key, self._entry.open(identity, temperature, self._settings)
        yield self._open[1]

    @contextmanager
    def _lend_teacher(self, identity: ModelIdentity, temperature: float) -> Iterator[LogprobBackend]:
        if not self._entry.served:
            with self._lend(identity, temperature) as backend:
                yield backend
            return
        from rlt_data.reward.backends.torch import TorchBackend

        yield TorchBackend(self._local.load(identity, temperature), memory=self._settings.memory)
