"""`rlt-data ingest`."""

from __future__ import annotations

from rlt_data.stages.ingest.stage import IngestConfig, ingest

from ..stage import make_stage_command

command = make_stage_command(IngestConfig, ingest, names={"options": "--option"}, arguments=("source",))
