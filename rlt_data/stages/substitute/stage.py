"""Substitute: selected explanations become the student's training examples, the true solution in place.

Whatever solution the teacher wrote or was given, the example holds the question's own (label
substitution). The text ends with the end token that the student's chat template writes.
"""

from __future__ import annotations

import polars as pl

from rlt_data.errors import UsageError
from rlt_data.formats import check_template, load_format, require_end_token
from rlt_data.lake import Lake, RunRecord
from rlt_data.models import find_context, load_tokenizer, read_model_config, resolve_model
from rlt_data.progress import Reporter
from rlt_data.stages.runtime.run import StageRun, StageSummary, open_run
from rlt_data.stages.runtime.selection import find_run
from rlt_data.stages.substitute.config import SubstituteConfig
from rlt_data.stages.substitute.examples import ExampleWriter

__all__ = ["SubstituteConfig", "substitute"]


def substitute(
    lake: Lake, config: SubstituteConfig, *, force: bool = False, reporter: Reporter | None = None
) -> StageSummary:
    """Write the distillation examples of a ranking: explanation kept, the true solution in place.

    Each example is the whole conversation, rendered through the student's chat template and as messages,
    with its token counts. Texts over the student's context are dropped, kept or replaced by the next-best
    trace, as `over_context` says; whatever is dropped goes to `rejects` by name. The newest finished
    ranking is used unless one is named.

    Raises `ModelError` where the student has no usable chat template or its template writes no end token,
    `LakeError` where there is no such ranking, `UsageError` where it ranked by several students, or by no
    model whose name would do for the student.
    """
    ranking = find_run(lake, "rank", config.ranking)
    ranked_by = _choose_ranked_by(lake, ranking, config)
    student = config.student or _find_student(lake, ranked_by)
    identity = resolve_model(student, role="student", need="tokenizer")
    format = load_format(config.format)
    tokenizer = load_tokenizer(identity)
    require_end_token(format, tokenizer, read_model_config(identity).end_token_ids)
    notes = check_template(format, tokenizer, "student", name=identity.name)
    limit = config.context or find_context(identity, tokenizer)
    with open_run(
        lake,
        "substitute",
        config,
        inputs=(),
        pinned=("rankings", "traces", "questions"),
        outputs=("distillation",),
        models=[identity],
        identity={
            "ranking": ranking.run_id,
            "ranked_by": ranked_by,
            "format": format.identity_text(),
            "context": limit,
        },
        force=force,
        reporter=reporter,
    ) as run:
        if run.already_done:
            return run.summary
        for note in notes:
            run.note(note)
        run.summary.extra |= {"ranking": ranking.run_id, "ranked_by": ranked_by, "context": limit}
        writer = ExampleWriter(run, config, format, tokenizer, identity, limit)
        writer.write_examples(_read_ranking(run, ranking.run_id, ranked_by))
    return run.summary


def _choose_ranked_by(lake: Lake, ranking: RunRecord, config: SubstituteConfig) -> str:
    rows = lake.table("rankings").scan().filter(pl.col("run_id") == ranking.run_id)
    found = rows.select(pl.col("student").unique()).collect().get_column("student").sort().to_list()
    if config.ranked_by in found:
        return str(config.ranked_by)
    if config.ranked_by is None and len(found) == 1:
        return str(found[0])
    if config.ranked_by is None and config.student in found:
        return str(config.student)
    raise UsageError(
        f"the ranking {ranking.run_id[:12]} is not by {config.ranked_by!r}"
        if config.ranked_by
        else f"the ranking {ranking.run_id[:12]} is by several students",
        where=f"it ranked by: {', '.join(found) or 'nobody (it is empty)'}",
        remedy="--ranked-by NAME chooses one",
    )


def _find_student(lake: Lake, ranked_by: str) -> str:
    """Take the student that ranked, where it is a model that scored: a mean of several is none."""
    scored = lake.table("scores").scan().filter(pl.col("student") == ranked_by)
    if scored.select("score_id").head(1).collect().height:
        return ranked_by
    raise UsageError(
        "the ranking names no model whose chat template could be used",
        where=f"it ranked by {ranked_by!r}",
        remedy="name the student: --student MODEL",
    )


def _read_ranking(run: StageRun, ranking: str, ranked_by: str) -> pl.DataFrame:
    mine = (pl.col("run_id") == ranking) & (pl.col("student") == ranked_by)
    columns = ["question_id", "trace_id", "rank", "reward", "selected"]
    return run.read("rankings").filter(mine).select(columns).sort("question_id", "rank").collect()
