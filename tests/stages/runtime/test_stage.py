"""A stage prints lines without a terminal, also before its run starts and while no step is shown."""

from __future__ import annotations

from pathlib import Path

from test_progress import INTERVAL, PipedStderr

from rlt_data.lake import Lake
from rlt_data.progress import Reporter
from rlt_data.stages.runtime.contract import StageConfig
from rlt_data.stages.runtime.declaration import StageDeclaration
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.stage import stage


def test_a_stage_prints_lines_while_it_prepares_and_between_steps(tmp_path: Path) -> None:
    with PipedStderr() as piped:

        @stage(StageConfig, StageDeclaration("slow", "Wait for lines."))
        def slow(lake: Lake, config: StageConfig) -> Preparation:
            assert piped.read_line().startswith("slow: ")

            def execute(run: StageRun) -> None:
                assert piped.read_line().startswith("slow: ")

            return Preparation(execute)

        summary = slow(Lake(tmp_path / "lake"), StageConfig(), reporter=Reporter(interval=INTERVAL))
    assert summary.status == "finished"
