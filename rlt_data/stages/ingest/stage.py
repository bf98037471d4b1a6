"""Ingest: problems and traces into `questions` and `traces`; what cannot be used, into `rejects`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from rlt_data.formats import load_format
from rlt_data.lake import Lake
from rlt_data.progress import Reporter
from rlt_data.settings import load_settings
from rlt_data.sources.layouts import LAYOUTS
from rlt_data.sources.opening import open_source
from rlt_data.sources.prepare import Limits, Preparer
from rlt_data.stages.ingest.ingester import Ingester, choose_layouts
from rlt_data.stages.runtime.run import StageConfig, StageSummary, open_run

SCHEME_VERSION = 1


class IngestConfig(StageConfig):
    """What to read and how. The content of the source decides the result, not its place."""

    # The parts' content hashes and the layouts that they turned out to have stand for these.
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset(
        {"source", "layout", "subset", "split", "revision", "size", "seed", "options", "format"}
    )

    source: str = Field(description="File, directory, hub id, reasoning-gym:NAME, or arithmetic:chain_sum.")
    layout: str | None = Field(
        None,
        description="Layout of the rows; told from the columns where not given. "
        "One of: " + ", ".join(layout.name for layout in LAYOUTS) + ".",
    )
    map: Mapping[str, str] = Field(
        default_factory=dict,
        description="Columns under other names, such as question=prompt,solution=response.",
    )
    subset: str | None = Field(None, description="Subset (configuration) of a hub data set.")
    split: str | None = Field(None, description="Split of a hub data set or of a directory; all by default.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub data set.")
    limit: int | None = Field(None, ge=1, description="Take the first rows only.")
    size: int | None = Field(None, ge=1, description="Problems to generate (1,000 by default).")
    seed: int = Field(0, ge=0, description="Seed of generated problems.")
    options: Mapping[str, Any] = Field(
        default_factory=dict, description="Options of the generator, such as min_numbers=3."
    )
    teacher: str | None = Field(None, description="Who wrote the traces, where the source does not say.")
    format: str = Field("stratos", description="Conversation format whose tags mark thought and solution.")
    untagged: Literal["unknown", "think"] = Field(
        "unknown",
        description="What a completion without any tag is: unknown (its think is null), or think as a whole.",
    )
    solution_template: str = Field(
        r"The answer is \boxed{{answer}}.",
        description="Solution where only the final answer is known; {answer} is replaced.",
    )
    max_question_characters: int = Field(50_000, ge=1, description="Longer questions are rejected.")
    max_solution_characters: int = Field(100_000, ge=1, description="Longer solutions are rejected.")
    max_trace_characters: int = Field(1_000_000, ge=1, description="Longer traces are rejected.")

    @field_validator("solution_template")
    @classmethod
    def _check_template(cls, template: str) -> str:
        if "{answer}" not in template:
            raise ValueError("the template must hold {answer}, where the answer goes")
        return template


def ingest(
    lake: Lake, config: IngestConfig, *, force: bool = False, reporter: Reporter | None = None
) -> StageSummary:
    """Read problems, and traces where there are some, into the lake.

    A row that cannot be used goes to `rejects` with file, row and reason; a question that stands already
    does too, and its traces are attached to the one that stands. Rows: `rows_in` are the source's;
    `extra` counts rejected questions and traces by reason, and traces by state.

    Raises `InputError` where the source cannot be read at all, `UsageError` where its layout cannot be
    told or an argument does not go with it.
    """
    source = open_source(
        config.source,
        size=config.size,
        seed=config.seed,
        options=config.options,
        subset=config.subset,
        split=config.split,
        revision=config.revision,
    )
    parts = choose_layouts(source.parts, config.layout, config.map)
    format = load_format(config.format, load_settings())
    identity = {
        "parts": [part.identify() for part in source.parts],
        "layouts": [None if found.layout is None else found.layout.name for found in parts],
        "format": format.identity_text(),
    }
    with open_run(
        lake,
        "ingest",
        config,
        inputs=(),
        pinned=("questions",),
        outputs=("questions", "traces"),
        identity=identity,
        scheme_version=SCHEME_VERSION,
        force=force,
        reporter=reporter,
    ) as run:
        if not run.already_done:
            preparer = Preparer(
                format,
                Limits(
                    config.max_question_characters,
                    config.max_solution_characters,
                    config.max_trace_characters,
                ),
                solution_template=config.solution_template,
                untagged=config.untagged,
                teacher=config.teacher,
            )
            Ingester(run, preparer, mapping=config.map, limit=config.limit).ingest_parts(parts)
            for note in source.notes:
                run.note(note)
    return run.summary
