"""`rlt-data export`."""

from __future__ import annotations

from rlt_data.stages.export.stage import ExportConfig, export

from ..stage import make_stage_command

command = make_stage_command(ExportConfig, export, arguments=("path",))
