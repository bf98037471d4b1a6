"""Distillation examples: rendered, measured, and replaced or rejected where they are too long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, assert_never

import polars as pl

from rlt_data.errors import InputError
from rlt_data.formats import (
    ConversationFormat,
    RenderedText,
    build_student_messages,
    encode_texts,
    find_control_token,
    render_student_text,
)
from rlt_data.hashing import hash_content
from rlt_data.models import ModelIdentity
from rlt_data.stages.runtime.run import StageRun
from rlt_data.stages.substitute.config import SubstituteConfig
from rlt_data.stages.substitute.next_best import NextBestTraces

# Number of rows of the ranking whose texts are in memory at a time.
READ_ROWS = 4_096


@dataclass(frozen=True)
class _Example:
    """One rendered candidate with its token counts."""

    row: dict[str, Any]
    rendered: RenderedText
    prompt_tokens: int
    total_tokens: int


class ExampleWriter:
    """Renders, counts and appends examples; holds one batch of texts at a time."""

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
        next_best = NextBestTraces(ranking, self._load)
        self._run.count(rows_in=selected.height)
        with self._run.track("build examples", selected.height, unit="examples") as task:
            for chunk in selected.iter_slices(READ_ROWS):
                too_long = []
                for example in self._measure(self._load(chunk)):
                    task.advance(1, example.total_tokens)
                    if not self._is_over(example):
                        self._append(example)
                        continue
                    match self._config.over_context:
                        case "keep":
                            self._append(example)
                        case "drop":
                            self._reject_length(example, "dropped")
                        case "next-best":
                            too_long.append(example)
                        case never:
                            assert_never(never)
                self._replace(too_long, next_best)

    def _load(self, chunk: pl.DataFrame) -> list[dict[str, Any]]:
        """Read the texts of some rows of the ranking, in their order."""
        run = self._run
        traces = run.read("traces").filter(pl.col("trace_id").is_in(chunk.get_column("trace_id").to_list()))
        question_ids = chunk.get_column("question_id").unique().to_list()
        questions = run.read("questions").filter(pl.col("question_id").is_in(question_ids))
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
        flaw = self._find_flaw(row)
        if flaw is None:
            try:
                return render_student_text(
                    self._format, self._tokenizer, row["question"], row["think"], row["solution"]
                )
            except InputError as error:
                flaw = "invalid_text", f"{error.what} ({error.where})"
        self._run.reject(source="traces", reason=flaw[0], detail=flaw[1], key=row["trace_id"])
        return None

    def _find_flaw(self, row: dict[str, Any]) -> tuple[str, str] | None:
        """Return reason and detail for a row that cannot become an example; None for one that can."""
        if row["question"] is None:
            return "unknown_question", f"question {row['question_id']} is not in the lake"
        if row["think"] is None or not row["think"].strip():
            return "no_explanation", "the trace does not mark which part of it is the explanation"
        match self._config.control_tokens:
            case "keep":
                return None
            case "reject":
                for name in ("question", "think", "solution"):
                    if found := find_control_token(self._tokenizer, row[name]):
                        what = f"the {name} contains {found!r}"
                        return "control_token", f"{what}, which is a control token of the student's template"
                return None
            case never:
                assert_never(never)

    def _is_over(self, example: _Example) -> bool:
        return self._limit is not None and example.total_tokens > self._limit

    def _append(self, example: _Example, replaces: str | None = None) -> None:
        row = example.row
        over = self._is_over(example)
        messages = build_student_messages(self._format, row["question"], row["think"], row["solution"])
        self._run.count(
            tokens=example.total_tokens, over_context=int(over), replaced=int(replaces is not None)
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
                    "completion_start": example.rendered.spans["assistant"][0],
                    "messages": messages,
                    "prompt_tokens": example.prompt_tokens,
                    "total_tokens": example.total_tokens,
                    "over_context": over,
                    "stands_in_for": replaces,
                }
            ],
        )

    def _replace(self, too_long: list[_Example], next_best: NextBestTraces) -> None:
        """Replace each example that is too long by its question's next-best trace that fits and is unused."""
        if not too_long:
            return
        next_best.open({example.row["question_id"] for example in too_long})
        for example in too_long:
            replacement = next_best.find(example.row["question_id"], self._measure_fitting)
            if replacement is None:
                self._reject_length(example, "no other trace of the question fits")
            else:
                self._append(replacement, replaces=example.row["trace_id"])
                self._reject_length(example, f"replaced by {replacement.row['trace_id']}")

    def _measure_fitting(self, row: dict[str, Any]) -> _Example | None:
        return next((example for example in self._measure([row]) if not self._is_over(example)), None)

    def _reject_length(self, example: _Example, what: str) -> None:
        self._run.reject(
            source="rankings",
            reason="over_context",
            detail=f"{example.total_tokens} tokens, the context is {self._limit}: {what}",
            key=example.row["trace_id"],
        )
