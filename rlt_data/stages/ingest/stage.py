"""Ingest: problems and traces into `questions` and `traces`; what cannot be used, into `rejects`."""

from __future__ import annotations

from rlt_data.formats import load_format
from rlt_data.lake import Lake
from rlt_data.settings import load_settings
from rlt_data.sources.opening import open_source
from rlt_data.sources.prepare import Limits, Preparer
from rlt_data.stages.ingest.config import IngestConfig
from rlt_data.stages.ingest.ingester import Ingester, choose_layouts, explain_change
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.stage import stage


@stage(IngestConfig)
def ingest(lake: Lake, config: IngestConfig) -> Preparation:
    """Read problems, and traces where there are some, into the lake.

    A row that cannot be used goes to `rejects` with file, row and reason; so does a question that is
    already in the lake, and its traces are added to the existing one. `rows_in` counts the source's rows;
    `extra` counts rejected questions and traces by reason, and traces by state.

    Raises `InputError` where the source cannot be read at all, `UsageError` where its layout cannot be
    recognized or an option does not apply to it.
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
    stamps = [part.take_stamp() for part in source.parts]
    parts = choose_layouts(source.parts, config.layout, config.map, stamps)
    identities = [part.identify() for part in source.parts]
    format = load_format(config.format, load_settings())

    def execute(run: StageRun) -> None:
        limits = Limits(
            config.max_question_characters, config.max_solution_characters, config.max_trace_characters
        )
        preparer = Preparer(
            format,
            limits,
            solution_template=config.solution_template,
            untagged=config.untagged,
            teacher=config.teacher,
        )
        Ingester(run, preparer, mapping=config.map, limit=config.limit).ingest_parts(parts)
        # The run is identified by what the parts held when it was prepared.
        for part, identity in zip(parts, identities, strict=True):
            part.check_unchanged()
            if part.part.identify() != identity:
                raise explain_change(part.part)
        for note in source.notes:
            run.note(note)

    return Preparation(
        execute,
        # The source is identified by the content of its parts and their layouts, not by its location.
        identity={
            "parts": identities,
            "layouts": [None if part.layout is None else part.layout.name for part in parts],
            "format": format.identity_text(),
        },
    )
