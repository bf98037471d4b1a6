"""The questions of a task: from the hub, a file, a generator of problems, or rows of the lake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from rlt_data.errors import InputError, UsageError
from rlt_data.formats import load_built_in
from rlt_data.hashing import hash_content
from rlt_data.sources.hub import is_hub_id
from rlt_data.sources.identity import normalize_text
from rlt_data.sources.layouts import Layout, Row, find_layout, recognize_layout, rename_columns
from rlt_data.sources.opening import Source, open_source
from rlt_data.sources.prepare import Limits, Preparer
from rlt_data.sources.rows import BadRow, Part, RowError, SourceRow
from rlt_data.sources.values import read_text, write_json
from rlt_data.tasks.answers import extract_answer
from rlt_data.tasks.definition import ChoiceColumns, TaskDefinition, TaskSource
from rlt_data.tasks.options import LETTERS

LONGEST = 10_000_000
"""A question or a solution with more characters is rejected."""

OnReject = Callable[["BadQuestion"], None]


@dataclass(frozen=True)
class TaskQuestion:
    """One question of a task.

    `options` of a multiple choice are in the order of the source, and `right` is the position of the right
    one. `answer` is the true answer otherwise; None where the source has none. `metadata` is a JSON object.
    """

    question_id: str
    question: str
    answer: str | None
    source: str
    source_row: int | None
    metadata: str
    options: tuple[str, ...] = ()
    right: int | None = None


@dataclass(frozen=True)
class BadQuestion:
    """A row of the source that is not a question of the task, and why."""

    source: str
    source_row: int | None
    reason: str
    detail: str
    content: str | None


@dataclass(frozen=True)
class QuestionSource:
    """The questions of a task in a source. `identity` is a hash of everything that determines them."""

    definition: TaskDefinition
    parts: tuple[tuple[Part, Layout | None], ...]
    mapping: Mapping[str, str]
    identity: str
    notes: tuple[str, ...] = ()

    def read(self, on_reject: OnReject) -> Iterator[TaskQuestion]:
        """Read the questions in order, each once; `on_reject` is called with every row that is not one.

        Raises `InputError` where a part cannot be read.
        """
        seen: set[str] = set()
        preparer = _make_preparer()
        for part, layout in self.parts:
            for row in part.read():
                found = self._read_row(part, layout, row, preparer)
                if isinstance(found, TaskQuestion) and found.question_id in seen:
                    found = BadQuestion(
                        part.name,
                        found.source_row,
                        "duplicate",
                        "the task has this question already",
                        write_json(row.values) if isinstance(row, SourceRow) else None,
                    )
                if isinstance(found, BadQuestion):
                    on_reject(found)
                    continue
                seen.add(found.question_id)
                yield found

    def _read_row(
        self, part: Part, layout: Layout | None, row: SourceRow | BadRow, preparer: Preparer
    ) -> TaskQuestion | BadQuestion:
        if isinstance(row, BadRow):
            return BadQuestion(part.name, row.number, row.reason, row.detail, row.content)
        values = rename_columns(row.values, self.mapping)
        try:
            if self.definition.choices is not None:
                question = read_choice(values, self.definition.choices)
            else:
                assert layout is not None, "a part with a good row has a layout"
                prepared = preparer.prepare(layout, values)
                question = TaskQuestion(
                    prepared.question_id,
                    prepared.question,
                    prepared.answer,
                    "",
                    None,
                    prepared.metadata,
                )
        except RowError as error:
            return BadQuestion(part.name, row.number, error.reason, error.detail, write_json(row.values))
        return replace(question, source=part.name, source_row=row.number)


def open_questions(
    definition: TaskDefinition,
    *,
    data: str | None = None,
    layout: str | None = None,
    mapping: Mapping[str, str] | None = None,
) -> QuestionSource:
    """Open the source of a task's questions, or the file, directory, hub id or generator `data` instead.

    `layout` and `mapping` are those of `data`. Raises `UsageError` where the task has no source and none is
    given, or no layout fits; `InputError` where the source cannot be read.
    """
    source = definition.source if data is None else TaskSource(dataset=data, layout=layout, map=mapping or {})
    if source is None:
        raise UsageError(
            f"the task {definition.name} has no questions of its own",
            remedy="name them: --data FILE, or --where PREDICATE over the questions of the lake",
        )
    opened = _open(definition, source)
    parts = tuple(
        (part, _choose_layout(definition, part, source.layout, source.map)) for part in opened.parts
    )
    layouts = [None if found is None else found.name for _, found in parts]
    choices = None if definition.choices is None else definition.choices.model_dump()
    identity = hash_content(
        "task questions", [part.identify() for part, _ in parts], layouts, dict(source.map), choices
    )
    return QuestionSource(definition, parts, source.map, identity, tuple(opened.notes))


def read_lake_questions(questions: pl.LazyFrame) -> Iterator[TaskQuestion]:
    """Read rows of the table `questions`, in the order of their sources."""
    columns = ("question_id", "question", "solution", "answer", "source", "source_row", "metadata")
    ordered = questions.select(*columns, "dataset").sort("dataset", "source", "source_row", "question_id")
    for batch in ordered.select(columns).collect_batches(maintain_order=True):
        for question_id, question, solution, answer, source, number, metadata in batch.iter_rows():
            gold = answer or extract_answer(solution)
            yield TaskQuestion(question_id, question, gold, source, number, metadata or "{}")


def read_choice(values: Mapping[str, Any], columns: ChoiceColumns) -> TaskQuestion:
    """Read a multiple choice with its options apart. Raises `RowError` where a part is missing or repeated.

    The id is a hash of the question and its options in any order: short questions repeat with others.
    """
    row = Row(values)
    question = row.take_text(columns.question)
    if question is None:
        raise RowError("missing_question", f"the column {columns.question!r} is blank")
    options, right = _read_options(row, columns)
    if any(option is None for option in options):
        raise RowError("missing_choice", "one of the options is blank")
    texts = tuple(option.strip() for option in options if option is not None)
    if not 2 <= len(texts) <= len(LETTERS):
        raise RowError("wrong_number_of_choices", f"there are {len(texts)} options")
    if len(set(texts)) < len(texts):
        raise RowError("repeated_choice", "two of the options are equal")
    question_id = identify_choice(question, texts)
    metadata = write_json(row.take_rest())
    return TaskQuestion(question_id, question.strip(), None, "", None, metadata, texts, right)


def identify_choice(question: str, options: Sequence[str]) -> str:
    """Return the id of a multiple choice, which does not depend on the order of its options."""
    return hash_content("multiple choice", normalize_text(question), sorted(map(normalize_text, options)))


def _read_options(row: Row, columns: ChoiceColumns) -> tuple[Sequence[str | None], int]:
    if columns.right is not None:
        return [row.take_text(name) for name in (columns.right, *columns.wrong)], 0
    assert columns.options is not None
    assert columns.answer is not None
    raw = row.take(columns.options)
    if isinstance(raw, Mapping):  # as ARC has them: {"text": [...], "label": [...]}
        raw = raw.get("text")
    if not isinstance(raw, list | tuple):
        raise RowError("wrong_type", f"the column {columns.options!r} is not a list of options")
    options = [read_text(option, columns.options) for option in raw]
    return options, find_right(row.take_text(columns.answer), options, columns.answer)


def find_right(answer: str | None, options: Sequence[str | None], column: str) -> int:
    """Find the position of the right option from its letter, its position or its text.

    Raises `RowError` where `answer`, the value of `column`, is none of these.
    """
    if answer is not None:
        text = answer.strip()
        stripped = [None if option is None else option.strip() for option in options]
        if text in stripped:
            return stripped.index(text)
        if len(text) == 1 and (position := LETTERS.find(text.upper())) in range(len(options)):
            return position
        if text.isdecimal() and len(text) < 3 and int(text) < len(options):
            return int(text)
    raise RowError("missing_answer", f"the column {column!r} names none of the options: {answer!r}")


def _open(definition: TaskDefinition, source: TaskSource) -> Source:
    try:
        return open_source(
            source.dataset,
            size=source.size,
            seed=source.seed,
            options=source.options or None,
            subset=source.subset,
            split=source.split,
            revision=source.revision,
        )
    except InputError as error:
        if not is_hub_id(source.dataset) or Path(source.dataset).exists():
            raise
        what = f"the questions of {definition.name} cannot be read: {error.what}"
        remedy = (
            f"give a file of them: --data FILE; `hf download {source.dataset} --repo-type dataset "
            "--local-dir DIR` gets it on a machine with network access"
        )
        if source.gated:
            what = f"the questions of {definition.name} need the consent of their authors: {error.what}"
            remedy = (
                f"accept the conditions at huggingface.co/datasets/{source.dataset}, log in with `hf auth "
                f"login`, and run this again; or {remedy}"
            )
        raise InputError(what, where=error.where, remedy=remedy) from error


def _choose_layout(
    definition: TaskDefinition, part: Part, layout: str | None, mapping: Mapping[str, str]
) -> Layout | None:
    if definition.choices is not None:
        return None
    if part.layout is not None:
        return find_layout(part.layout)
    return recognize_layout(part.read(), where=part.name, layout=layout, mapping=mapping)


def _make_preparer() -> Preparer:
    return Preparer(
        load_built_in("stratos"),
        Limits(LONGEST, LONGEST, LONGEST),
        solution_template="{answer}",
        untagged="unknown",
        teacher=None,
    )
