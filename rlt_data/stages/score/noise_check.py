"""The noise check of the score stage: a sample of questions scored as configured, and in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from rlt_data.models import ModelIdentity
from rlt_data.stages.score.group import GroupWork
from rlt_data.stages.score.rows import make_request


def check_noise(work: GroupWork, students: Sequence[ModelIdentity], rows: pl.DataFrame) -> None:
    """Score about `noise_check` traces both ways and put the report into the summary.

    Whole questions are taken, evenly spread, so that rankings within them can be compared. The models are
    loaded again in float32 where they run in another type.
    """
    from rlt_data.reward.noise import compare_rewards
    from rlt_data.reward.rewards import RewardParts, score_texts
    from rlt_data.reward.scoring.loading import ModelCache
    from rlt_data.reward.scoring.texts import ScoreRequest

    run, config = work.run, work.config
    sample = pick_questions(
        rows.filter(pl.col("question").is_not_null(), pl.col("think").is_not_null()), config.noise_check
    )
    made = (make_request(row) for row in sample.iter_rows(named=True))
    requests = [request for request in made if isinstance(request, ScoreRequest)]
    if not requests:
        return
    settings = config.reward
    if work.group.teacher is None:
        settings = settings.model_copy(update={"lambda_kl": 0.0})
    questions = dict(sample.select("trace_id", "question_id").iter_rows())

    def score(by: GroupWork, **options: Any) -> dict[tuple[str, str], RewardParts]:
        results = score_texts(by.open_scorer(students, **options), requests, settings)
        return {
            (result.key, result.student or ""): result.parts for result in results if result.parts is not None
        }

    chosen = score(work)
    models = work.models
    if work.dtype != "float32":
        work.models.keep_only([])
        models = ModelCache(dtype="float32", device=config.device)
    # The model's own attention over one text at a time, without any of the fast path.
    plain = GroupWork(run, config, work.group, models, work.key, work.dtype, work.progress)
    exact = score(plain, mode="padded", pack_tokens=1)
    keys = [key for key in chosen if key in exact]
    report = compare_rewards(
        [chosen[key] for key in keys],
        [exact[key] for key in keys],
        [f"{questions[trace_id]} {student}" for trace_id, student in keys],
    )
    run.note(report.describe())
    run.summary.extra["noise_check"] = report.as_dict()


def pick_questions(rows: pl.DataFrame, count: int) -> pl.DataFrame:
    """Rows of whole questions, evenly spread over the table, about `count` rows in all."""
    sizes = rows.group_by("question_id", maintain_order=True).len()
    if not sizes.height:
        return rows
    wanted = max(1, round(count / max(1.0, rows.height / sizes.height)))
    wanted = min(wanted, sizes.height)
    indices = [(2 * i + 1) * sizes.height // (2 * wanted) for i in range(wanted)]
    return rows.filter(pl.col("question_id").is_in(sizes.get_column("question_id").gather(indices).to_list()))
