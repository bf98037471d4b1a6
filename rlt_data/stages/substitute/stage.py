"""Substitute: selected explanations become distillation examples, each followed by the true solution.

Whatever solution the teacher wrote or was given, the example contains the question's own (label
substitution). The text ends with the end token that the student's chat template writes.
"""

from __future__ import annotations

import polars as pl

from rlt_data.errors import UsageError
from rlt_data.formats import check_template, load_format, require_end_token
from rlt_data.lake import Lake, RunRecord
from rlt_data.models import find_context, load_tokenizer, read_model_config, resolve_model
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.selection import find_run, select_rows
from rlt_data.stages.runtime.stage import stage
from rlt_data.stages.substitute.config import SubstituteConfig
from rlt_data.stages.substitute.examples import ExampleWriter


@stage(SubstituteConfig)
def substitute(lake: Lake, config: SubstituteConfig) -> Preparation:
    """Build distillation examples: the selected explanation followed by the true solution.

    Each example is the whole conversation, rendered through the student's chat template and as messages,
    with its token counts. Texts longer than the student's context are dropped, kept or replaced by the
    next-best trace, according to `over_context`; dropped ones go to `rejects`. The newest finished ranking
    is used unless one is named.

    Raises `ModelError` where the student has no usable chat template or its template writes no end token,
    `LakeError` where there is no such ranking, `UsageError` where it ranked by several students, or by no
    single model.
    """
    ranking = find_run(lake, "rank", config.ranking)
    ranked_by = _choose_ranked_by(lake, ranking, config)
    student = config.student or _find_student(lake, ranked_by)
    identity = resolve_model(student, role="student", need="tokenizer")
    format = load_format(config.format)
    tokenizer = load_tokenizer(identity)
    require_end_token(format, tokenizer, read_model_config(identity).end_token_ids)
    notes = check_template(format, tokenizer, "student", name=identity.name)
    limit = config.student_context or find_context(identity, tokenizer)

    def execute(run: StageRun) -> None:
        for note in notes:
            run.note(note)
        run.summary.extra |= {"ranking": ranking.run_id, "ranked_by": ranked_by, "context": limit}
        writer = ExampleWriter(run, config, format, tokenizer, identity, limit)
        writer.write_examples(_read_ranking(run, config, ranking.run_id, ranked_by))

    return Preparation(
        execute,
        models=[identity],
        identity={
            "ranking": ranking.run_id,
            "ranked_by": ranked_by,
            "format": format.identity_text(),
            "context": limit,
        },
    )


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
        f"run {ranking.run_id[:12]} did not rank by {config.ranked_by!r}"
        if config.ranked_by
        else f"run {ranking.run_id[:12]} ranked by several students",
        where=f"it ranked by: {', '.join(found) or 'no student (it has no rows)'}",
        remedy="choose one with --ranked-by NAME",
    )


def _find_student(lake: Lake, ranked_by: str) -> str:
    """Use the student that the traces were ranked by, if it is a model; a mean of several is not."""
    scored = lake.table("scores").scan().filter(pl.col("student") == ranked_by)
    if scored.select("score_id").head(1).collect().height:
        return ranked_by
    raise UsageError(
        "the ranking does not name a student model, so there is no chat template to use",
        where=f"it ranked by {ranked_by!r}",
        remedy="name the student: --student MODEL",
    )


def _read_ranking(run: StageRun, config: SubstituteConfig, ranking: str, ranked_by: str) -> pl.DataFrame:
    """Read the ranking by question and rank; beyond the limit no trace is selected."""
    mine = (pl.col("run_id") == ranking) & (pl.col("student") == ranked_by)
    columns = ["question_id", "trace_id", "rank", "reward", "selected"]
    rows = select_rows(run, "rankings", config.where).filter(mine).select(columns)
    ranked = rows.sort("question_id", "rank").collect()
    if config.limit is None:
        return ranked
    return ranked.with_columns(pl.col("selected") & (pl.col("selected").cum_sum() <= config.limit))
