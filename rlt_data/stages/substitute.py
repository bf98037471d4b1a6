"""Substitute: selected explanations become the student's training examples, the true solution in place.

Whatever solution the teacher wrote or was given, the example holds the question's own (label
substitution). The text ends with the end token that the student's chat template writes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field

from rlt_data.errors import InputError, LakeError, UsageError
from rlt_data.formats import (
    ConversationFormat,
    RenderedText,
    build_student_messages,
    encode_texts,
    find_control_token,
    load_format,
    render_student_text,
    require_end_token,
)
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake, RunRecord
from rlt_data.models import ModelIdentity, load_tokenizer, read_model_config, resolve_model
from rlt_data.progress import Reporter
from rlt_data.stages.run import StageConfig, StageRun, StageSummary, open_run

# Rows of the ranking whose texts are held at a time.
READ_ROWS = 4_096
# A tokenizer without a limit of its own states an absurd one.
NO_LIMIT = 1_000_000_000


class SubstituteConfig(StageConfig):
    """How distillation examples are written."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset(
        {"student", "format", "ranking", "ranked_by", "context", "batch_size"}
    )

    student: str = Field(
        description="Model whose chat template and tokenizer are used: alias, path or hub id."
    )
    format: str = Field("stratos", description="Conversation format.")
    ranking: str | None = Field(
        None, description="Run that ranked (id or prefix); unset: the newest finished."
    )
    ranked_by: str | None = Field(
        None,
        description="Student whose ranking is used, where the run ranked by several; unset: this student.",
    )
    context: int | None = Field(
        None, ge=1, description="Longest text in tokens; unset: the context of the student's configuration."
    )
    over_context: Literal["drop", "keep", "next-best"] = Field(
        "drop",
        description="Texts over the context: drop them, keep them (marked), or take the question's next-best "
        "trace that fits. What is dropped goes to rejects.",
    )
    control_tokens: Literal["reject", "keep"] = Field(
        "reject",
        description="Texts that hold a token of the student's chat template, such as <|im_end|>, which would "
        "end the turn inside the thinking.",
    )
    batch_size: int = Field(256, ge=1, description="Texts that are tokenized together.")


def substitute(
    lake: Lake, config: SubstituteConfig, *, force: bool = False, reporter: Reporter | None = None
) -> StageSummary:
    """Write the distillation examples of a ranking: explanation kept, the true solution in place.

    Each example is the whole conversation, rendered through the student's chat template and as messages,
    with its token counts. Texts over the student's context are dropped, kept or replaced by the next-best
    trace, as `over_context` says; whatever is dropped goes to `rejects` by name. The newest finished
    ranking is used unless one is named.

    Raises `ModelError` where the student has no usable chat template or its template writes no end token,
    `LakeError` where there is no such ranking, `UsageError` where it ranked by several students.
    """
    ranking = find_run(lake, "rank", config.ranking)
    identity = resolve_model(config.student, role="student", need="tokenizer")
    format = load_format(config.format)
    tokenizer = load_tokenizer(identity)
    require_end_token(format, tokenizer, read_model_config(identity).end_token_ids)
    limit = config.context or find_context(identity, tokenizer)
    ranked_by = _choose_ranked_by(lake, ranking, config)
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
        run.summary.extra |= {"ranking": ranking.run_id, "ranked_by": ranked_by, "context": limit}
        writer = _ExampleWriter(run, config, format, tokenizer, identity, limit)
        writer.write_examples(_read_ranking(run, ranking.run_id, ranked_by))
    return run.summary


def find_run(lake: Lake, stage: str, run_id: str | None) -> RunRecord:
    """Find the run that `run_id` (or a prefix) names, or the newest finished run of `stage`.

    Raises `LakeError` where there is none, or where the named one is another stage's or not finished.
    """
    if run_id is not None:
        run = lake.run(run_id)
        if run.stage != stage or not run.finished:
            raise LakeError(
                f"run {run_id!r} is no finished run of {stage}",
                where=f"it is a run of {run.stage}, {run.status}",
                remedy="rlt-data log lists the runs",
            )
        return run
    finished = [run for run in lake.runs() if run.stage == stage and run.finished and run.ended_at]
    if not finished:
        raise LakeError(f"there is no finished run of {stage}", where=lake.uri, remedy=f"rlt-data {stage}")
    return max(finished, key=lambda run: (str(run.ended_at), run.run_id))


def find_context(identity: ModelIdentity, tokenizer: Any) -> int | None:
    """Find the longest text that a model reads, in tokens: the smaller of what model and tokenizer state."""
    limits = [read_model_config(identity).context, getattr(tokenizer, "model_max_length", None)]
    stated = [int(limit) for limit in limits if limit and limit < NO_LIMIT]
    return min(stated, default=None)


def _choose_ranked_by(lake: Lake, ranking: RunRecord, config: SubstituteConfig) -> str:
    rows = lake.table("rankings").scan().filter(pl.col("run_id") == ranking.run_id)
    found = rows.select(pl.col("student").unique()).collect().get_column("student").sort().to_list()
    if config.ranked_by in found:
        return str(config.ranked_by)
    if config.ranked_by is None and len(found) == 1:
        return str(found[0])
    if config.ranked_by is None and config.student in found:
        return config.student
    raise UsageError(
        f"the ranking {ranking.run_id[:12]} is not by {config.ranked_by!r}"
        if config.ranked_by
        else f"the ranking {ranking.run_id[:12]} is by several students",
        where=f"it ranked by: {', '.join(found) or 'nobody (it is empty)'}",
        remedy="--ranked-by NAME chooses one",
    )


def _read_ranking(run: StageRun, ranking: str, ranked_by: str) -> pl.DataFrame:
    mine = (pl.col("run_id") == ranking) & (pl.col("student") == ranked_by)
    columns = ["question_id", "trace_id", "rank", "reward", "selected"]
    return run.read("rankings").filter(mine).select(columns).sort("question_id", "rank").collect()


@dataclass(frozen=True)
class _Example:
    """One rendered candidate with its token counts."""

    row: dict[str, Any]
    rendered: RenderedText
    prompt_tokens: int
    total_tokens: int


class _ExampleWriter:
    """Renders, counts and appends examples; keeps no more than a batch of texts."""

    def __init__(
        self,
        run: StageRun,
        config: SubstituteConfig,
        format: ConversationFormat,
        tokenizer: Any,
        identity: ModelIdentity,
        limit: int | None,
    ) -> None:
        self._run = run
        self._config = config
        self._format = format
        self._tokenizer = tokenizer
        self._identity = identity
        self._limit = limit
        self._format_key = hash_content(format.identity_text())

    def write_examples(self, ranking: pl.DataFrame) -> None:
        """Write an example for every selected row of `ranking`, which is sorted by question and rank."""
        selected = ranking.filter("selected")
        self._run.count(rows_in=selected.height)
        with self._run.track("writing examples", selected.height, unit="examples") as task:
            for chunk in selected.iter_slices(READ_ROWS):
                too_long = []
                for example in self._measure(self._load(chunk)):
                    if not self._is_over(example) or self._config.over_context == "keep":
                        self._append(example)
                    elif self._config.over_context == "drop":
                        self._reject_length(example, "dropped")
                    else:
                        too_long.append(example)
                    task.advance(1, example.total_tokens)
                self._replace(too_long, ranking)

    def _load(self, chunk: pl.DataFrame) -> list[dict[str, Any]]:
        """Read the texts of some rows of the ranking, in their order."""
        run = self._run
        traces = run.read("traces").filter(pl.col("trace_id").is_in(chunk.get_column("trace_id").to_list()))
        asked = chunk.get_column("question_id").unique().to_list()
        questions = run.read("questions").filter(pl.col("question_id").is_in(asked))
        return (
            chunk.lazy()
            .join(traces.select("trace_id", "think"), on="trace_id", how="left", maintain_order="left")
            .join(
                questions.select("question_id", "question", "solution"),
                on="question_id",
                how="left",
                maintain_order="left",
            )
            .collect()
            .to_dicts()
        )

    def _measure(self, rows: list[dict[str, Any]]) -> Iterator[_Example]:
        """Render and tokenize rows, a batch at a time; those that cannot be used go to `rejects`."""
        for start in range(0, len(rows), self._config.batch_size):
            batch = rows[start : start + self._config.batch_size]
            rendered = [(row, text) for row in batch if (text := self._render_row(row)) is not None]
            encoded = encode_texts(self._tokenizer, [text.text for _, text in rendered])
            for (row, text), tokens in zip(rendered, encoded, strict=True):
                begin = text.spans["assistant"][0]
                prompt_tokens = sum(end <= begin for _, end in tokens.offsets)
                yield _Example(row, text, prompt_tokens, len(tokens.token_ids))

    def _render_row(self, row: dict[str, Any]) -> RenderedText | None:
        reason, detail = None, ""
        if row["question"] is None:
            reason, detail = "unknown_question", f"question {row['question_id']} is not in the lake"
        elif row["think"] is None or not row["think"].strip():
            reason, detail = "no_explanation", "the trace holds no explanation that can be told from the rest"
        elif self._config.control_tokens == "reject":
            for name in ("question", "think", "solution"):
                found = find_control_token(self._tokenizer, row[name])
                if found:
                    reason = "control_token"
                    detail = f"the {name} holds {found!r}, which the student reads as a token of its template"
                    break
        if reason is None:
            try:
                return render_student_text(
                    self._format, self._tokenizer, row["question"], row["think"], row["solution"]
                )
            except InputError as error:
                reason, detail = "invalid_text", f"{error.what} ({error.where})"
        self._run.reject(source="traces", reason=reason, detail=detail, key=row["trace_id"])
        return None

    def _is_over(self, example: _Example) -> bool:
        return self._limit is not None and example.total_tokens > self._limit

    def _append(self, example: _Example, stands_in_for: str | None = None) -> None:
        row = example.row
        over = self._is_over(example)
        messages = build_student_messages(self._format, row["question"], row["think"], row["solution"])
        self._run.count(
            tokens=example.total_tokens, over_context=int(over), replaced=int(stands_in_for is not None)
        )
        self._run.append(
            "distillation",
            [
                {
                    "example_id": hash_content(
                        "example", self._run.run_id, row["trace_id"], self._format_key
                    ),
                    "question_id": row["question_id"],
                    "trace_id": row["trace_id"],
                    "rank": row["rank"],
                    "reward": row["reward"],
                    "format": self._format.name,
                    "tokenizer": self._identity.model,
                    "text": example.rendered.text,
                    "messages": messages,
                    "prompt_tokens": example.prompt_tokens,
                    "total_tokens": example.total_tokens,
                    "over_context": over,
                    "stands_in_for": stands_in_for,
                }
            ],
        )

    def _replace(self, too_long: list[_Example], ranking: pl.DataFrame) -> None:
        """Give each example that is too long its question's next-best trace that fits and is not used."""
        if not too_long:
            return
        questions = {example.row["question_id"] for example in too_long}
        others = ranking.filter(~pl.col("selected") & pl.col("question_id").is_in(questions))
        waiting: dict[str, deque[dict[str, Any]]] = {question: deque() for question in questions}
        for row in self._load(others):
            waiting[row["question_id"]].append(row)
        for example in too_long:
            candidates = waiting[example.row["question_id"]]
            stand_in = None
            while candidates and stand_in is None:
                fitting = [e for e in self._measure([candidates.popleft()]) if not self._is_over(e)]
                stand_in = fitting[0] if fitting else None
            if stand_in is None:
                self._reject_length(example, "no other trace of the question fits")
            else:
                self._append(stand_in, stands_in_for=example.row["trace_id"])
                self._reject_length(example, f"replaced by {stand_in.row['trace_id']}")

    def _reject_length(self, example: _Example, what: str) -> None:
        self._run.reject(
            source="rankings",
            reason="over_context",
            detail=f"{example.total_tokens} tokens, the context is {self._limit}: {what}",
            key=example.row["trace_id"],
        )
