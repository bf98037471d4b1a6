"""Select what a model learns from: read, rendered, tokenized and checked in the main process, in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, assert_never

import numpy as np
import polars as pl

from rlt_data.errors import InputError
from rlt_data.formats import (
    ConversationFormat,
    check_template,
    encode_texts,
    find_control_token,
    load_format,
)
from rlt_data.models import ModelIdentity, load_tokenizer, read_model_config
from rlt_data.stages.runtime.run import StageRun
from rlt_data.stages.runtime.selection import select_rows
from rlt_data.stages.substitute.next_best import NextBestTraces
from rlt_data.training.sft.checks.display import print_example, refuse_example
from rlt_data.training.sft.checks.examples import ExampleChecker, Flaw
from rlt_data.training.sft.checks.messages import MessageCheck
from rlt_data.training.sft.config import SftConfig
from rlt_data.training.sft.examples import Explained, SupervisedExample
from rlt_data.training.sft.over_long import OverLong, record_over_long
from rlt_data.training.sft.roles import SftRole
from rlt_data.training.sft.tokenized import TokenizedExamples, make_arrays

# Rows whose texts are in memory at a time, and texts that are tokenized together.
READ_ROWS = 2_048
_BATCH = 64


@dataclass(frozen=True)
class _Candidate:
    """A row with its texts, and token ids and labels of the example made of it.

    The example itself, with its offsets, is kept only where it may have to be shown.
    """

    row: Mapping[str, Any]
    arrays: tuple[np.ndarray, np.ndarray]
    has_inner_end: bool
    flaw: Flaw | None = None
    example: SupervisedExample | None = None

    @property
    def tokens(self) -> int:
        return len(self.arrays[0])


class ExampleSelector:
    """Makes the examples of a training, in an order that depends on their content only.

    A text beyond the limit is dropped, kept or replaced (`over_long`), one that cannot be learned from is
    rejected (a teacher's) or refused with the row (a student's).
    """

    def __init__(
        self, run: StageRun, config: SftConfig, role: SftRole, source: Mapping[str, str], base: ModelIdentity
    ) -> None:
        self.run = run
        self.config = config
        self.role = role
        self.source = source
        self.base = base
        model = read_model_config(base)
        self.context = model.context
        self.limit = config.max_tokens or model.context
        self._end_token_ids = model.end_token_ids
        self._format: ConversationFormat = load_format(config.format)
        self._tokenizer = load_tokenizer(base)
        self._checker = ExampleChecker(
            self._format,
            self._tokenizer,
            closing=role.find_closing(self._format),
            end_token_ids=model.end_token_ids,
        )
        self._messages = MessageCheck(self._format, self._tokenizer) if role.refuses else None
        self._over_long: list[OverLong] = []
        self._inner_ends: list[str] = []
        self._next_best: NextBestTraces | None = None
        self._shown: SupervisedExample | None = None

    def select(self) -> TokenizedExamples:
        """Select all examples; writes rejects, notes and figures of the run.

        Raises `InputError` where there is nothing to learn from, or for a row that a student must not learn
        from, with its key and the offending part of its text.
        """
        for note in check_template(self._format, self._tokenizer, self.config.role, name=self.base.name):
            self.run.note(note)
        keys = self._select_keys()
        self.run.summary.extra |= {"explanations": keys.height, **self.source}
        with self.run.track("check texts", keys.height, unit="texts") as task:
            examples = TokenizedExamples.join(
                candidate.arrays
                for chunk in keys.iter_slices(READ_ROWS)
                for candidate in self._make_chunk(chunk, task.advance)
            )
        self._finish(examples, keys.height)
        return examples

    def _select_keys(self) -> pl.DataFrame:
        role, config = self.role, self.config
        rows = role.keep_rows(select_rows(self.run, role.table, config.where), self.source)
        keys = role.list_keys(rows)
        selected = keys.collect() if config.limit is None else keys.head(config.limit).collect()
        if not selected.height:
            raise InputError(
                f"there are no examples for the {config.role} to learn from",
                where=f"{role.table} of {self.run.lake.uri}"
                + (f" where {config.where}" if config.where else ""),
                remedy="ingest a corpus with reasoning traces, such as Bespoke-Stratos-17k, or loosen "
                "`where`",
            )
        return selected

    def _make_chunk(self, chunk: pl.DataFrame, advance: Any) -> Iterator[_Candidate]:
        """Yield the examples of a chunk in its order, with replacements in place of what they replace."""
        made = list(self._make_candidates(self._load(chunk)))
        advance(chunk.height)
        too_long = [candidate for candidate in made if self._is_over(candidate.tokens)]
        if too_long and self.config.over_long == "next-best":
            self._open_next_best(too_long)
        for candidate in made:
            kept = self._handle_length(candidate) if self._is_over(candidate.tokens) else candidate
            if kept is not None and self._is_sound(kept):
                self._note_contents(kept)
                yield kept

    def _load(self, keys: pl.DataFrame) -> list[dict[str, Any]]:
        """Read the texts of some rows, in their order."""
        traces = self.run.read("traces").filter(pl.col("trace_id").is_in(keys["trace_id"].to_list()))
        question_ids = keys["question_id"].unique().to_list()
        questions = self.run.read("questions").filter(pl.col("question_id").is_in(question_ids))
        return (
            keys.lazy()
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

    def _make_candidates(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[_Candidate]:
        whole = [row for row in rows if self._has_texts(row)]
        for start in range(0, len(whole), _BATCH):
            batch = whole[start : start + _BATCH]
            texts = [Explained(row["question"], row["solution"], row["think"]) for row in batch]
            examples = self.role.build_examples(self._format, self._tokenizer, texts, self._end_token_ids)
            prompts = encode_texts(
                self._tokenizer,
                [self.role.render_prompt(self._format, self._tokenizer, text).text for text in texts],
            )
            for row, example, prompt in zip(batch, examples, prompts, strict=True):
                yield self._check(row, example, prompt.token_ids)

    def _check(
        self, row: Mapping[str, Any], example: SupervisedExample, prompt_ids: Sequence[int]
    ) -> _Candidate:
        flaw = self._checker.find_flaw(example, prompt_ids)
        if self._shown is None and flaw is None:
            self._shown = example
        whole = self.config.over_long == "keep" and self.context is not None
        shown = flaw is not None or (whole and len(example.token_ids) > (self.context or 0))
        return _Candidate(
            row,
            make_arrays(example),
            self._checker.has_inner_end(example),
            flaw,
            example if shown else None,
        )

    def _has_texts(self, row: Mapping[str, Any]) -> bool:
        if row["think"] is not None and row["question"] is not None:
            return True
        missing = ("trace", row["trace_id"]) if row["think"] is None else ("question", row["question_id"])
        self.run.reject(
            source=self.role.table,
            reason=f"unknown_{missing[0]}",
            detail=f"the lake has no text of {missing[0]} {missing[1]}",
            key=str(row["key"]),
        )
        return False

    def _is_over(self, tokens: int) -> bool:
        return self.limit is not None and tokens > self.limit

    def _open_next_best(self, too_long: Sequence[_Candidate]) -> None:
        questions = {str(candidate.row["question_id"]) for candidate in too_long}
        if self._next_best is None:
            ranking = self.role.read_ranking(self.run, self.source)
            self._next_best = NextBestTraces(ranking, lambda rows: self._load(_name_keys(rows)))
        self._next_best.open(questions)

    def _handle_length(self, candidate: _Candidate) -> _Candidate | None:
        """Return the example to learn from, None without one; records what became of it."""
        row, limit = candidate.row, self.limit
        assert limit is not None
        lost = OverLong(
            key=self.role.make_reject_key(row),
            question_id=row["question_id"],
            trace_id=row["trace_id"],
            tokens=candidate.tokens,
            limit=limit,
            reward=row["reward"],
        )
        kept: _Candidate | None = None
        match self.config.over_long:
            case "keep":
                self._require_context(candidate)
                kept, lost = candidate, replace(lost, kept=True)
            case "next-best":
                assert self._next_best is not None
                kept = self._next_best.find(row["question_id"], self._make_fitting)
                lost = replace(lost, replaced_by=kept.row["trace_id"] if kept is not None else None)
            case "drop":
                pass
            case never:
                assert_never(never)
        self._over_long.append(lost)
        return kept

    def _make_fitting(self, row: Mapping[str, Any]) -> _Candidate | None:
        """Make an example of a next-best trace; None where it is too long, empty or not one text."""
        texts = [row[name] for name in ("question", "think", "solution")]
        if any(not text or find_control_token(self._tokenizer, text) for text in texts):
            return None
        (made,) = self._make_candidates([row])
        return None if self._is_over(made.tokens) or made.flaw is not None else made

    def _require_context(self, candidate: _Candidate) -> None:
        if self.context is None or candidate.tokens <= self.context:
            return
        what = f"the text has {candidate.tokens:,} tokens, and the model's context is {self.context:,}"
        example = candidate.example
        assert example is not None
        flaw = Flaw(
            f"{what}, so it cannot be kept whole",
            "set sft.over_long to drop or next-best",
            (example.offsets[self.context][0], len(example.rendered.text)),
        )
        raise refuse_example(str(candidate.row["key"]), example, flaw)

    def _is_sound(self, candidate: _Candidate) -> bool:
        flaw, example = candidate.flaw, candidate.example
        if flaw is None or example is None:
            return True
        if self.role.refuses:
            raise refuse_example(str(candidate.row["key"]), example, flaw)
        self.run.reject(
            source=self.role.table,
            reason="unusable" if example.is_aligned else "straddling_token",
            detail=flaw.what
            if example.is_aligned
            else "a token begins in the prompt and ends in what is to be learned",
            key=self.role.make_reject_key(candidate.row),
        )
        return False

    def _note_contents(self, candidate: _Candidate) -> None:
        row, key = candidate.row, str(candidate.row["key"])
        if self._messages is not None:
            self._messages.add(key, row["question"], row["think"], row["solution"])
        if candidate.has_inner_end:
            self._inner_ends.append(key)

    def _finish(self, examples: TokenizedExamples, rows: int) -> None:
        run, role = self.run, self.role
        record_over_long(run, role.table, self._over_long, content=role.refuses)
        if not len(examples) or self._shown is None:
            raise InputError(
                f"none of {rows} texts can be learned from: each has more than {self.limit} tokens, or a "
                "token that begins in the prompt and ends after it",
                where="rejects of this run",
                remedy="raise sft.max_tokens, or end the format's prefill where a token ends",
            )
        run.summary.extra["examples"] = len(examples)
        if role.refuses:
            run.summary.extra["tokens_per_epoch"] = len(examples.token_ids)
            run.summary.extra["longest"] = int(examples.lengths.max())
        if self._messages is not None and (lost := self._messages.describe(self.base.name, len(examples))):
            run.note(lost)
        if self._inner_ends:
            run.note(
                f"{len(self._inner_ends):,} of {len(examples):,} texts contain the end token "
                f"{self._checker.end!r} before their end, the first is {self._inner_ends[0]}: the model "
                "learns to stop there. substitute rejects such traces unless control_tokens is keep"
            )
        if self._tokenizer.pad_token_id in (None, self._checker.end_id):
            run.note(
                "the tokenizer pads with its end token. Padding has no label here; a trainer that finds "
                "padding by its token would not teach the model to stop"
            )
        if self.context is not None and int(examples.lengths.max()) > self.context:
            run.note(
                f"the longest text has {int(examples.lengths.max()):,} tokens, more than the model's context "
                f"of {self.context:,}: sft.max_tokens allows it"
            )
        if not run.reporter.quiet:
            print_example(self._shown)


def _name_keys(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.col("trace_id").alias("key"))
