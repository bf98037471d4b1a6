"""A task: its questions, the prompt, how answers are graded, and how completions are sampled, as data.

Built-in tasks are the TOML files of the folder `built_in`; each is named as its file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import Field, model_validator

from rlt_data.bounds import STRICT, Count, Options, Rows, SamplingTemperature, Tokens
from rlt_data.errors import UsageError
from rlt_data.hashing import hash_content
from rlt_data.settings import Settings, load_settings
from rlt_data.sources.procedural.reasoning_gym_options import PREFIX
from rlt_data.suggestions import suggest_name
from rlt_data.tasks.grading.base import GraderName
from rlt_data.tasks.options import LETTERS
from rlt_data.toml import TomlDocument, load_document, parse_document, validate_data

PLACEHOLDER = re.compile(r"\{(question|options)\}")
OPTION_PLACEHOLDER = re.compile(r"\{(letter|text)\}")
GENERATED_SEED = 1_000_000
"""Seed of the questions of `reasoning-gym:NAME`: far from the seeds of questions to train on."""

_FOLDER = resources.files(__package__).joinpath("built_in")
BUILT_IN = tuple(
    sorted(file.name.removesuffix(".toml") for file in _FOLDER.iterdir() if file.name.endswith(".toml"))
)


class TaskSource(pydantic.BaseModel):
    """Where the questions of a task come from."""

    model_config = STRICT

    dataset: str = Field(description="Hub id, file, directory, or generator of problems.")
    subset: str | None = Field(None, description="Subset (configuration) of a hub dataset.")
    split: str | None = Field(None, description="Split of a hub dataset or of a directory.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub dataset.")
    gated: bool = Field(False, description="Whether its authors ask for consent before a download.")
    layout: str | None = Field(None, description="Layout of the rows; unset: recognized by the columns.")
    map: Mapping[str, str] = Field(default_factory=dict, description="Columns that have other names.")
    size: Rows | None = Field(None, description="Number of problems to generate.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of generated problems.")
    options: Options = Field(default_factory=dict, description="Options of the problem generator.")


class ChoiceColumns(pydantic.BaseModel):
    """The columns of a multiple choice: `right` and `wrong` have one text each, or `options` has a list.

    With `options`, the column `answer` has the letter, the position from 0, or the text of the right one.
    """

    model_config = STRICT

    question: str = "question"
    right: str | None = None
    wrong: tuple[str, ...] = ()
    options: str | None = None
    answer: str | None = None

    @model_validator(mode="after")
    def _check(self) -> ChoiceColumns:
        apart = self.right is not None and len(self.wrong) > 0
        together = self.options is not None and self.answer is not None
        mixed = (self.right is not None or self.wrong) and (self.options is not None or self.answer)
        if mixed or not (apart or together):
            raise ValueError("name either `right` and `wrong`, or `options` and `answer`")
        if len(self.wrong) >= len(LETTERS):
            raise ValueError(f"there are {len(LETTERS)} letters")
        return self


class TaskSampling(pydantic.BaseModel):
    """How completions are sampled where the command does not say otherwise."""

    model_config = STRICT

    samples: Count = Field(1, description="Completions a question.")
    temperature: SamplingTemperature = Field(0.0, description="Sampling temperature; 0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling mass; 1 turns it off.")
    top_k: int = Field(0, ge=0, le=10**9, description="Sample from the k likeliest tokens; 0: all.")
    max_tokens: Tokens = Field(32_768, description="Maximum length of a completion in tokens.")


class TaskDefinition(pydantic.BaseModel):
    """One task, built in or a user's own.

    `prompt` is the user's message; only `{question}` and `{options}` in it are replaced, so other braces stay
    as they are. `option` writes one option of a multiple choice, and `separator` is between them. `grader`
    gives the verdicts of the task's metrics, and the graders of `also` are stored beside it. `origin` states
    where each part comes from.
    """

    model_config = STRICT

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][\w.:-]*$")
    about: str = ""
    prompt: str = "{question}"
    option: str = "{letter}) {text}"
    separator: str = "\n"
    grader: GraderName
    also: tuple[GraderName, ...] = ()
    source: TaskSource | None = None
    choices: ChoiceColumns | None = None
    sampling: TaskSampling = TaskSampling()
    origin: Mapping[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> TaskDefinition:
        found = PLACEHOLDER.findall(self.prompt)
        if found.count("question") != 1:
            raise ValueError(f"prompt must contain {{question}} once, found {found.count('question')}")
        is_choice = self.grader == "choice"
        if found.count("options") != (1 if is_choice else 0):
            raise ValueError(
                f"prompt must contain {{options}} {'once' if is_choice else 'never'} where the grader is "
                f"{self.grader}, found {found.count('options')}"
            )
        if is_choice != (self.choices is not None):
            raise ValueError("the grader choice and the section `choices` belong together")
        if sorted(OPTION_PLACEHOLDER.findall(self.option)) != ["letter", "text"]:
            raise ValueError("option must contain {letter} and {text} once each")
        if self.grader in self.also or len(set(self.also)) < len(self.also):
            raise ValueError("a grader is named twice")
        return self

    @property
    def graders(self) -> tuple[GraderName, ...]:
        """All graders, the task's own first."""
        return (self.grader, *self.also)

    def hash_prompt(self, student: Mapping[str, Any]) -> str:
        """Hash everything that turns a question into a prompt; `student` is the format's part of it."""
        return hash_content("task prompt", self.prompt, self.option, self.separator, student)


@dataclass(frozen=True)
class ListedTask:
    """A task and where it is defined: `built in`, or file and line."""

    task: TaskDefinition
    defined_in: str


def load_task(name_or_path: str, settings: Settings | None = None) -> ListedTask:
    """Load a task by name (a user's own before a built-in one), from a TOML file, or `reasoning-gym:NAME`.

    `settings` default to the nearest `rlt-data.toml`. A user's task with `base = "math500"` needs only the
    keys that differ. Raises `UsageError` for an unknown name, for an unknown key (with file, line and the
    nearest valid key), and for a prompt without its placeholders.
    """
    settings = load_settings() if settings is None else settings
    if name_or_path in settings.tasks:
        return _build_from_settings(name_or_path, settings)
    if name_or_path in BUILT_IN:
        return ListedTask(load_built_in_task(name_or_path), "built in")
    if name_or_path.startswith(PREFIX):
        return ListedTask(_make_generated(name_or_path), "built in")
    path = Path(name_or_path).expanduser()
    if path.suffix == ".toml" or path.is_file():
        document = load_document(path)
        table = _inherit({"name": path.stem, **document.data}, document.name)
        task = validate_data(TaskDefinition, table, [document])
        return ListedTask(_anchor_source(task, path.parent), document.name)
    names = list_task_names(settings)
    raise UsageError(
        f"there is no task {name_or_path!r}",
        where=f"existing tasks: {', '.join(names)}, {PREFIX}NAME",
        remedy=f"{suggest_name(name_or_path, names)}; or name a TOML file, or add [tasks.{name_or_path}] to "
        "rlt-data.toml",
    )


def list_tasks(settings: Settings | None = None) -> list[ListedTask]:
    """List the built-in and the user's tasks, in the order of names. Raises as `load_task`."""
    settings = load_settings() if settings is None else settings
    return [load_task(name, settings) for name in list_task_names(settings)]


def list_task_names(settings: Settings) -> list[str]:
    """List the names of the built-in and the user's tasks."""
    return sorted({*BUILT_IN, *settings.tasks})


@cache
def load_built_in_task(name: str) -> TaskDefinition:
    """Load a built-in task, regardless of the user's settings."""
    text = _FOLDER.joinpath(f"{name}.toml").read_text(encoding="utf-8")
    document = parse_document(text, f"{name}.toml")
    return validate_data(TaskDefinition, {"name": name, **document.data}, [document])


class _TaskTables(pydantic.BaseModel):
    tasks: Mapping[str, TaskDefinition]


def _build_from_settings(name: str, settings: Settings) -> ListedTask:
    where = f"[tasks.{name}]"
    table = _inherit({"name": name, **settings.tasks[name]}, where)
    documents: list[TomlDocument] = [settings.document] if settings.document is not None else []
    task = validate_data(_TaskTables, {"tasks": {name: table}}, documents).tasks[name]
    located = settings.document.locate(("tasks", name)) if settings.document is not None else where
    return ListedTask(_anchor_source(task, settings.path.parent if settings.path else None), located)


def _inherit(table: dict[str, Any], where: str) -> dict[str, Any]:
    """Add the keys of the base task that `table` lacks."""
    base = table.pop("base", None)
    if base is None:
        return table
    if base not in BUILT_IN:
        raise UsageError(
            f"a task cannot be based on {base!r}",
            where=where,
            remedy=f"base is one of the built-in tasks: {', '.join(BUILT_IN)}",
        )
    inherited = load_built_in_task(base).model_dump(exclude_unset=True)
    parts: tuple[Literal["source", "sampling", "origin"], ...] = ("source", "sampling", "origin")
    for part in parts:
        own, above = table.get(part, {}), inherited.get(part, {})
        inherited[part] = {**above, **own} if isinstance(own, Mapping) else own
    # Another dataset has neither the subset nor the columns of the base.
    if isinstance(own_source := table.get("source"), Mapping) and "dataset" in own_source:
        inherited["source"] = own_source
    return {**inherited, **{key: value for key, value in table.items() if key not in parts}}


def _anchor_source(task: TaskDefinition, folder: Path | None) -> TaskDefinition:
    """Make the path of a file beside the definition absolute."""
    if task.source is None or folder is None or "://" in task.source.dataset:
        return task
    beside = folder / Path(task.source.dataset).expanduser()
    if not beside.exists():
        return task
    return task.model_copy(
        update={"source": task.source.model_copy(update={"dataset": str(beside.resolve())})}
    )


def _make_generated(name: str) -> TaskDefinition:
    """Make the task of a generator of reasoning-gym."""
    base = load_built_in_task("countdown")
    generator = name.removeprefix(PREFIX)
    return TaskDefinition(
        name=name,
        about=f"Problems of reasoning-gym's generator {generator}.",
        prompt=base.prompt,
        grader="reasoning_gym",
        source=TaskSource(dataset=name, size=500, seed=GENERATED_SEED),
        sampling=base.sampling,
        origin={
            "prompt": "that of the task countdown",
            "questions": f"{name}, 500 problems from seed {GENERATED_SEED:,}",
        },
    )
