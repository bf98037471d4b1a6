"""Rewrite: a model writes each selected explanation anew; each result is a trace with its parent.

So corpora are cleaned as published baselines were: by a model, not by a filter. The parents stay as they are.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import polars as pl

from rlt_data.engines import Completion, Engine, FailedRequest
from rlt_data.errors import UsageError
from rlt_data.formats import check_template, load_format
from rlt_data.lake import Lake
from rlt_data.progress import Task
from rlt_data.settings import load_settings
from rlt_data.stages.generate.trace_writer import describe_completion
from rlt_data.stages.generate.truncation_limit import TruncationLimit
from rlt_data.stages.rewrite.config import RewriteConfig
from rlt_data.stages.rewrite.prompt import load_prompt
from rlt_data.stages.rewrite.rewriting import (
    ORIGIN,
    Parent,
    Requests,
    Rewriting,
    derive_seed,
    describe_rewriting,
    digest_parents,
    list_missing,
    reject_trace,
    select_parents,
)
from rlt_data.stages.runtime.engine_models import open_model_engine, resolve_engine_model
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.selection import find_run, keep_rows, select_rows
from rlt_data.stages.runtime.stage import stage


@stage(RewriteConfig)
def rewrite(lake: Lake, config: RewriteConfig) -> Preparation:
    """Rewrite explanations with a model, such as to clean up their format.

    The model sees each trace through the prompt file. Its answer, without its own thinking, is the
    explanation of a new trace, whose `parent_trace_id` names the trace that it was made from. A trace that
    was rewritten is not rewritten again by the same model and prompt, and rewritten traces are never
    rewritten themselves. What cannot be asked (no explanation, too long for the model) goes to `rejects`.

    The stage stops where more than `max_truncated_share` of the answers are truncated; see `generate`.

    Raises `UsageError` where the prompt is unusable or no trace is selected, `StageStoppedError` where too
    many answers are truncated, `ModelError` and `MissingExtraError` where the model cannot be run,
    `EngineError` where its engine or server dies.
    """
    settings = load_settings()
    prompt = load_prompt(config.prompt)
    format = load_format(config.format, settings)
    model = resolve_engine_model(config, config.model, role="rewriter", settings=settings)
    ranking = None if config.ranking is None else find_run(lake, "rank", config.ranking).run_id
    traces = keep_rows(lake, lake.table("traces").scan(), "traces", config.where)
    rankings = None if ranking is None else lake.table("rankings").scan()
    count, digest = digest_parents(select_parents(traces, rankings, ranking, config.limit))
    if not count:
        raise UsageError("the selection contains no trace to rewrite", where=f"where = {config.where!r}")
    identity: dict[str, Any] = {
        "prompt": prompt.list_identity(),
        "format": format.identity_text()["student"],
        "parents": [count, digest],
    }
    if config.is_served:
        identity["renderer"] = None if model.renderer is None else model.renderer.content_key
    if config.model_options:
        identity["model_options"] = config.model_options

    def execute(run: StageRun) -> None:
        rewriting = describe_rewriting(config, model, prompt, format, run.attempt)
        if model.renderer is not None and not config.uses_chat:
            notes = check_template(
                rewriting.format, model.load_tokenizer("model"), "student", name=model.model.name
            )
            for note in notes:
                run.note(note)
        selected = select_rows(run, "traces", config.where)
        ranked = None if ranking is None else run.read("rankings")
        _rewrite(run, rewriting, select_parents(selected, ranked, ranking, config.limit))

    return Preparation(execute, models=[model.model], identity=identity)


def _rewrite(run: StageRun, rewriting: Rewriting, parents: pl.LazyFrame) -> None:
    """Rewrite the traces that this rewriting lacks."""
    limit = TruncationLimit(rewriting.config, texts="answers")
    missing = list_missing(run, rewriting, parents, limit)
    if missing:
        name = rewriting.model.model.name
        with open_model_engine(run, rewriting.config, rewriting.model.model) as engine:
            writer = _Writer(run, rewriting, engine, limit)
            with run.track(f"rewrite with {name}", len(missing), "traces") as task:
                writer.write(missing, task)
            run.summary.extra |= {"rows_per_second": writer.rows_per_second, **engine.figures}
            for note in engine.notes:
                run.note(note)
            run.flush()
    limit.check_at_end(run.run_id)


class _Writer:
    """Sends requests to an engine, and appends what comes back to `traces` or `rejects`, as it comes."""

    def __init__(self, run: StageRun, rewriting: Rewriting, engine: Engine, limit: TruncationLimit) -> None:
        self._run = run
        self._rewriting = rewriting
        self._engine = engine
        self._limit = limit
        self._answers = 0
        self._began = time.monotonic()

    @property
    def rows_per_second(self) -> float:
        """Answers a second since this writer was made."""
        return self._answers / max(time.monotonic() - self._began, 1e-6)

    def write(self, missing: dict[str, str], task: Task) -> None:
        """Rewrite the traces of `missing`."""
        run, rewriting, engine = self._run, self._rewriting, self._engine
        requests = Requests(run, rewriting, prefills=engine.prefills)
        asked = requests.make(missing)
        with closing(engine.generate(asked, rewriting.sampling, on_wait=run.flush_when_due)) as answers:
            for answer in answers:
                parent = requests.take_parent(answer.key)
                self._answers += 1
                if isinstance(answer, FailedRequest):
                    reject_trace(run, answer.key, parent, answer.reason, answer.detail)
                    task.advance(1)
                    continue
                row = self._build_row(parent, answer)
                tokens = answer.token_count or 0
                by_context = bool(
                    row["truncated"] and answer.token_count and tokens < rewriting.config.max_tokens
                )
                self._limit.count(truncated=row["truncated"], by_context=by_context)
                run.count(rows_in=1, truncated=int(row["truncated"]), tokens=tokens)
                run.append("traces", [row])
                task.advance(1, tokens=tokens)
                self._limit.check_during_run(run.run_id)

    def _build_row(self, parent: Parent, completion: Completion) -> dict[str, Any]:
        """Build the row of one answer.

        Its format is the parent's: that is what a student will learn from it. Its log-probabilities are not
        stored: they are those of a text after this prompt, not after a teacher's.
        """
        rewriting = self._rewriting
        parsed = rewriting.prompt.read_answer(rewriting.format, completion.text)
        return {
            **describe_completion(rewriting.model.model, self._engine, rewriting.sampling, completion),
            "question_id": parent.question_id,
            "generation_id": rewriting.id,
            "sample_index": parent.sample_index,
            "origin": ORIGIN,
            "parent_trace_id": parent.trace_id,
            "format": parent.format,
            "think": parsed.think,
            "state": parsed.state,
            "seed": derive_seed(rewriting, parent),
        }
