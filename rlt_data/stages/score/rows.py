"""Rows of the score stage: traces become requests, results become rows of `scores` or `rejects`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from rlt_data.formats import load_format
from rlt_data.hashing import hash_content
from rlt_data.models import ModelIdentity
from rlt_data.reward.derive import derive_reward
from rlt_data.reward.settings import RewardSettings
from rlt_data.stages.runtime.run import StageRun
from rlt_data.stages.score.config import ScoreConfig
from rlt_data.stages.score.trace_groups import ScoreGroup

if TYPE_CHECKING:
    from rlt_data.reward.reuse import SampledTokens
    from rlt_data.reward.scoring.scorer import TokenScores
    from rlt_data.reward.scoring.texts import FailedText, ScoreRequest


class ScoreKey:
    """The key of one score, except for trace and student.

    The fields of the first scheme are hashed by position, all other row fields by name.
    """

    def __init__(self, config: ScoreConfig, group: ScoreGroup, dtype: str, attempt: int) -> None:
        student, teacher = config.model_temperatures
        by_position = {"temperature", "teacher_temperature", "exact", "rescore_teacher", "backend"}
        others = {k: v for k, v in config.list_row_identity().items() if k not in by_position}
        has_teacher = group.teacher is not None
        self._parts = [
            load_format(group.format).identity_text(),
            group.teacher.content_key if group.teacher is not None else None,
            student,
            teacher if has_teacher else None,
            dtype,
            "exact" if config.stores_divergences and has_teacher else "sampled",
            config.rescore_teacher,
            attempt,
            *([config.backend] if config.backend != "torch" else []),
            *([config.model_options] if config.model_options else []),
            *([others] if others else []),
        ]

    def make_id(self, trace_id: str, student: ModelIdentity) -> str:
        """The key of the score of one trace by one student."""
        return hash_content("score", trace_id, student.content_key, *self._parts)


def make_request(row: Mapping[str, Any]) -> ScoreRequest | FailedText:
    """Make the request of one trace with its question, or the failure that explains why there is none."""
    from rlt_data.reward.scoring.texts import FailedText, ScoreRequest

    if row["question"] is None:
        detail = f"question {row['question_id']} is not in the lake"
        return FailedText(row["trace_id"], "unknown_question", detail)
    if row["think"] is None:
        detail = f"the trace does not mark which part of it is the explanation (state {row['state']})"
        return FailedText(row["trace_id"], "no_explanation", detail)
    closed = row["state"] != "missing_close"
    return ScoreRequest(row["trace_id"], row["question"], row["solution"], row["think"], closed)


def read_sampled(row: Mapping[str, Any]) -> SampledTokens | None:
    """What the engine stored with a trace, where it stored log-probabilities."""
    from rlt_data.reward.reuse import SampledTokens

    ids, logprobs = row.get("completion_token_ids"), row.get("completion_logprobs")
    return SampledTokens(ids, logprobs) if ids is not None and logprobs is not None else None


def reject_trace(run: StageRun, failure: FailedText, student: str | None = None) -> None:
    """Put a trace that cannot be scored, by one student or at all, into `rejects`."""
    content = None
    if student is not None:
        content = json.dumps({"trace_id": failure.key, "student": student}, ensure_ascii=False)
    run.reject(
        source="traces", reason=failure.reason, detail=failure.detail, key=failure.key, content=content
    )


def make_row(
    result: TokenScores,
    trace: Mapping[str, Any],
    *,
    key: ScoreKey,
    config: ScoreConfig,
    group: ScoreGroup,
    student: ModelIdentity,
    dtype: str,
    teacher_source: str,
) -> dict[str, Any]:
    """Make a row of `scores`, without the reward columns and run_id."""
    teacher = group.teacher
    temperature, teacher_temperature = config.model_temperatures
    return result.as_row() | {
        "score_id": key.make_id(result.key, student),
        "trace_id": result.key,
        "question_id": trace["question_id"],
        "student": student.name,
        "student_model": student.model,
        "student_revision": student.revision,
        "teacher": teacher.name if teacher is not None else None,
        "teacher_model": teacher.model if teacher is not None else None,
        "teacher_revision": teacher.revision if teacher is not None else None,
        "format": group.format,
        "backend": config.backend,
        "teacher_source": teacher_source if teacher is not None else None,
        "dtype": dtype,
        "temperature_student": temperature,
        "temperature_teacher": teacher_temperature if teacher is not None else None,
    }


def append_scores(run: StageRun, rows: list[dict[str, Any]], settings: RewardSettings) -> None:
    """Append score rows with the reward derived under `settings`."""
    if not rows:
        return
    arrow = run.lake.table("scores").schema.arrow
    names = [name for name in arrow.names if name in rows[0]]
    schema = pl.DataFrame(arrow.empty_table()).select(names).schema
    frame = pl.DataFrame(rows, schema=schema)
    run.append("scores", frame.with_columns(derive_reward(settings)))
