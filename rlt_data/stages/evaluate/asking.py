"""Ask a model: prompts to its engine, and its completions into `evaluations` as they finish."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from rlt_data.engines import Engine, FailedRequest, GenerationRequest
from rlt_data.errors import EngineError, InputError
from rlt_data.formats import ConversationFormat, find_opened_thinking
from rlt_data.progress import Task
from rlt_data.stages.evaluate.rows import RowBuilder
from rlt_data.stages.evaluate.samples import EvaluatedTask, Sample
from rlt_data.stages.runtime.engine_models import EngineModel, write_user_prompt
from rlt_data.stages.runtime.run import StageRun

OWN_FAULTS = frozenset(
    {"over_context", "empty_prompt", "token_without_embedding", "invalid_text", "answer_too_large"}
)
"""Reasons of failed requests that would recur: such a sample is an evaluation, without an answer. Others (a
server that is gone, a timeout) are rejects, and the next call asks them again."""


class Asker:
    """Asks one model the samples of one task."""

    def __init__(
        self,
        run: StageRun,
        task: EvaluatedTask,
        model: EngineModel,
        format: ConversationFormat,
        engine: Engine,
        seed: int,
    ) -> None:
        self._run = run
        self._task = task
        self._model = model
        self._format = format
        self._engine = engine
        self._seed = seed
        self._tokenizer: Any = model.load_tokenizer("model") if engine.prefills else None
        # As the model is served: some templates open the thinking, and a student's training text goes on so.
        self._opened = "" if self._tokenizer is None else find_opened_thinking(format, self._tokenizer)
        self._rows = RowBuilder(task, model, format, engine, seed, opened=self._opened)

    def ask(self, samples: Mapping[str, Sample], progress: Task) -> None:
        """Ask `samples`; each becomes a row of `evaluations` or `rejects`, also where the engine dies."""
        waiting = dict(samples)
        run, sampling = self._run, self._task.sampling
        requests = self._make_requests(samples, waiting)
        try:
            with closing(self._engine.generate(requests, sampling, on_wait=run.flush_when_due)) as answers:
                for answer in answers:
                    sample = waiting.pop(answer.key)
                    if isinstance(answer, FailedRequest):
                        self._store_failure(answer.key, sample, answer.reason, answer.detail)
                        progress.advance(1)
                        continue
                    row = self._rows.build(sample, answer)
                    tokens = answer.token_count or 0
                    run.count(rows_in=1, truncated=int(row["truncated"]), tokens=tokens)
                    run.append("evaluations", [row])
                    progress.advance(1, tokens=tokens)
        except EngineError as error:
            run.note(f"the engine of {self._model.model.name} stopped: {error.what}")
            for key, sample in waiting.items():
                self._store_failure(key, sample, "engine_failed", str(error))

    def _make_requests(
        self, samples: Mapping[str, Sample], waiting: dict[str, Sample]
    ) -> Iterator[GenerationRequest]:
        for key, sample in samples.items():
            message = sample.write_prompt(self._task.task).message
            try:
                prompt, messages = write_user_prompt(self._format, self._tokenizer, message)
            except InputError as error:
                del waiting[key]
                self._store_failure(key, sample, "invalid_text", error.what)
                continue
            yield GenerationRequest(key, prompt + self._opened, sample.derive_seed(self._seed), messages)

    def _store_failure(self, key: str, sample: Sample, reason: str, detail: str) -> None:
        """Store a sample without a completion: as an evaluation where asking again would not help."""
        run = self._run
        run.count(rows_in=1)
        if reason in OWN_FAULTS:
            run.append("evaluations", [self._rows.build_failure(key, sample, f"{reason}: {detail}")])
            return
        content = json.dumps(
            {
                "task": self._task.task.name,
                "model": self._model.model.name,
                "question_id": sample.question.question_id,
                "sample_index": sample.sample_index,
            }
        )
        run.count(unanswered=1)
        run.reject(
            source=sample.question.source,
            source_row=sample.question.source_row,
            key=key,
            reason=reason,
            detail=detail,
            content=content,
        )
