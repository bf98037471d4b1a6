"""One rewriting: the traces that are rewritten, and the requests for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from rlt_data.engines import GenerationRequest, SamplingParameters, derive_sample_seed
from rlt_data.errors import InputError
from rlt_data.formats import ConversationFormat
from rlt_data.hashing import hash_content
from rlt_data.stages.generate.truncation_limit import TruncationLimit
from rlt_data.stages.rewrite.config import RewriteConfig
from rlt_data.stages.rewrite.prompt import RewritePrompt
from rlt_data.stages.runtime.engine_models import EngineModel, identify_engine_model, write_user_prompt
from rlt_data.stages.runtime.run import StageRun
from rlt_data.stages.runtime.selection import limit_rows

ORIGIN = "rewritten"
TEXTS = ("question", "solution", "think", "completion")
_ORDER = ("question_id", "trace_id")
_BATCH = 2048
"""Traces whose texts are in memory at once."""


@dataclass(frozen=True)
class Rewriting:
    """What all rows of one run share; `format` is that of the conversation with the model."""

    id: str
    config: RewriteConfig
    model: EngineModel
    prompt: RewritePrompt
    format: ConversationFormat
    sampling: SamplingParameters


def describe_rewriting(
    config: RewriteConfig,
    model: EngineModel,
    prompt: RewritePrompt,
    format: ConversationFormat,
    attempt: int,
) -> Rewriting:
    """Identify a rewriting by everything that determines its texts besides the traces."""
    applied = prompt.apply_to(format)
    key = hash_content(
        "rewriting",
        identify_engine_model(config, model),
        prompt.list_identity(),
        applied.identity_text()["student"],
        config.list_row_identity(),
        attempt,
    )
    sampling = SamplingParameters(
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        max_tokens=config.max_tokens,
    )
    return Rewriting(key, config, model, prompt, applied, sampling)


def select_parents(
    traces: pl.LazyFrame, rankings: pl.LazyFrame | None, ranking: str | None, limit: int | None
) -> pl.LazyFrame:
    """Keep the traces to rewrite: no rewritten ones, those that `ranking` selected, the first `limit`."""
    kept = traces.filter(pl.col("origin") != ORIGIN)
    if ranking is not None and rankings is not None:
        chosen = rankings.filter((pl.col("run_id") == ranking) & pl.col("selected")).select("trace_id")
        kept = kept.join(chosen.unique(), on="trace_id", how="semi", maintain_order="left")
    return limit_rows(kept, limit, key="trace_id", order=_ORDER)


def digest_parents(parents: pl.LazyFrame) -> tuple[int, str]:
    """Return the number of the selected traces and a hash of their ids.

    A rewriting writes to the table that it reads, so the content of the whole table cannot identify its run.
    """
    ids = parents.select("trace_id").collect(engine="streaming").get_column("trace_id").sort()
    return len(ids), hash_content(ids.to_list())


def list_missing(
    run: StageRun, rewriting: Rewriting, parents: pl.LazyFrame, limit: TruncationLimit
) -> dict[str, str]:
    """List the rows to make, each with its parent: all of the rewriting but those committed or rejected."""
    ids = parents.select(_ORDER).collect(engine="streaming").sort(_ORDER).get_column("trace_id")
    wanted = {make_trace_id(rewriting, parent): parent for parent in ids}
    made = (
        run.written("traces")
        .filter(pl.col("generation_id") == rewriting.id)
        .select("trace_id", "truncated", pl.col("run_id") == run.run_id)
        .collect()
    )
    elsewhere = 0
    for trace_id, truncated, mine in made.iter_rows():
        if wanted.pop(trace_id, None) is not None:
            elsewhere += not mine
            limit.count(truncated=truncated)
    rejected = run.written("rejects").filter(pl.col("run_id") == run.run_id).select("key").collect()
    for trace_id in rejected.get_column("key"):
        wanted.pop(trace_id, None)
    if elsewhere:
        run.note(f"{elsewhere:,} traces of this rewriting were already in the lake")
    return wanted


def make_trace_id(rewriting: Rewriting, parent: str) -> str:
    """Return the key of the rewritten trace of `parent`."""
    return hash_content(ORIGIN, parent, rewriting.id)


@dataclass(frozen=True)
class Parent:
    """What a rewritten row takes from its parent."""

    trace_id: str
    question_id: str
    sample_index: int
    format: str | None


class Requests:
    """Makes the request of each missing row, batch by batch, and remembers the parents of open ones."""

    def __init__(self, run: StageRun, rewriting: Rewriting, *, prefills: bool) -> None:
        self._run = run
        self._rewriting = rewriting
        self._prefills = prefills
        self._open: dict[str, Parent] = {}

    def take_parent(self, trace_id: str) -> Parent:
        """Return the parent of a row whose answer has come, and forget it."""
        return self._open.pop(trace_id)

    def make(self, missing: Mapping[str, str]) -> Iterator[GenerationRequest]:
        """Render the prompt of each row; a trace that lacks a text, or cannot be rendered, is rejected.

        Raises `ModelError` where prompts must be rendered and there is no chat template.
        """
        rewriting = self._rewriting
        tokenizer: Any = rewriting.model.load_tokenizer("model") if self._prefills else None
        children = {parent: trace_id for trace_id, parent in missing.items()}
        texts = [name for name in ("think", "completion") if rewriting.prompt.needs(name)]
        columns = ["trace_id", "question_id", "sample_index", "format", *texts]
        questions = self._run.read("questions").select("question_id", "question", "solution")
        ids = list(children)
        for start in range(0, len(ids), _BATCH):
            batch = pl.LazyFrame({"trace_id": ids[start : start + _BATCH]})
            rows = (
                self._run.read("traces")
                .select(columns)
                .join(batch, on="trace_id", how="semi")
                .join(questions, on="question_id", how="left")
                .sort(_ORDER)
                .collect(engine="streaming")
            )
            for row in rows.iter_rows(named=True):
                request = self._make_one(children[row["trace_id"]], row, tokenizer)
                if request is not None:
                    yield request

    def _make_one(self, trace_id: str, row: Mapping[str, Any], tokenizer: Any) -> GenerationRequest | None:
        rewriting = self._rewriting
        parent = Parent(row["trace_id"], row["question_id"], row["sample_index"], row["format"])
        lacking = [name for name in TEXTS if rewriting.prompt.needs(name) and not (row[name] or "").strip()]
        if lacking:
            reject_trace(self._run, trace_id, parent, "missing_text", f"it has no {lacking[0]}")
            return None
        message = rewriting.prompt.write_message({name: row.get(name) for name in TEXTS})
        try:
            prompt, messages = write_user_prompt(rewriting.format, tokenizer, message)
        except InputError as error:
            reject_trace(self._run, trace_id, parent, "invalid_text", error.what)
            return None
        self._open[trace_id] = parent
        return GenerationRequest(trace_id, prompt, derive_seed(rewriting, parent), messages)


def derive_seed(rewriting: Rewriting, parent: Parent) -> int:
    """Derive the seed of a row from that of the rewriting and the parent."""
    return derive_sample_seed(rewriting.config.seed, parent.trace_id, 0)


def reject_trace(run: StageRun, trace_id: str, parent: Parent, reason: str, detail: str) -> None:
    """Write a trace that cannot be rewritten to `rejects`."""
    run.count(rows_in=1)
    content = json.dumps({"parent_trace_id": parent.trace_id, "question_id": parent.question_id})
    run.reject(source="traces", key=trace_id, reason=reason, detail=detail, content=content)
