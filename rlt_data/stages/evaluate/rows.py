"""Rows of `evaluations`: of completions, and of samples that a model could not be asked."""

from __future__ import annotations

from typing import Any

from rlt_data.engines import Completion, Engine
from rlt_data.formats import ConversationFormat, find_response, parse_student_completion
from rlt_data.stages.evaluate.samples import EvaluatedTask, Sample
from rlt_data.stages.runtime.engine_models import EngineModel


class RowBuilder:
    """Builds the rows of one model on one task; `opened` is the end of the prompt that opens the thinking."""

    def __init__(
        self,
        task: EvaluatedTask,
        model: EngineModel,
        format: ConversationFormat,
        engine: Engine,
        seed: int,
        *,
        opened: str = "",
    ) -> None:
        self._task = task
        self._model = model.model
        self._format = format
        self._engine = engine
        self._seed = seed
        self._opened = opened

    def build(self, sample: Sample, completion: Completion) -> dict[str, Any]:
        """Build the row of a completion."""
        return {
            **self._describe(completion.key, sample),
            **read_completion(self._format, completion.text, opened=self._opened),
            "finish_reason": completion.finish_reason,
            "truncated": completion.finish_reason == "length",
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.token_count,
        }

    def build_failure(self, key: str, sample: Sample, reason: str) -> dict[str, Any]:
        """Build the row of a sample that the model could not be asked."""
        return {
            **self._describe(key, sample),
            "completion": "",
            "failure": reason,
            "truncated": False,
        }

    def _describe(self, key: str, sample: Sample) -> dict[str, Any]:
        task, model, question = self._task, self._model, sample.question
        prompt = sample.write_prompt(task.task)
        return {
            "evaluation_id": key,
            "task": task.task.name,
            "prompt_hash": task.prompt_hash,
            "question_id": question.question_id,
            "question": question.question,
            "options": list(prompt.options) or None,
            "answer": prompt.answer,
            "source": question.source,
            "source_row": question.source_row,
            "metadata": question.metadata,
            "model": model.name,
            "model_resolved": model.model,
            "model_revision": model.revision,
            "engine": self._engine.version,
            "format": self._format.name,
            "sample_index": sample.sample_index,
            "temperature": task.sampling.temperature,
            "top_p": task.sampling.top_p,
            "top_k": task.sampling.top_k,
            "max_tokens": task.sampling.max_tokens,
            "seed": sample.derive_seed(self._seed),
        }


def read_completion(format: ConversationFormat, text: str, *, opened: str = "") -> dict[str, Any]:
    """Return the columns of a completion that follow from its text: thinking, response and state.

    `opened` is what the prompt has opened: the beginning of the model's turn, which is not in its text.
    """
    parsed = parse_student_completion(format, opened + text)
    return {
        "completion": text,
        "think": parsed.think,
        "response": find_response(text, parsed),
        "state": parsed.state,
    }
