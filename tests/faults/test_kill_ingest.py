"""An ingest that is killed at random moments ends with the rows of an uninterrupted one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from faults.harness import assert_equal_lakes, draw_delays, make_command, run_killed, watch_table

from rlt_data.lake import Lake
from rlt_data.stages.ingest import IngestConfig, ingest
from rlt_data.stages.runtime.run import StageSummary

INGEST = """
import sys
from rlt_data.lake import Lake
from rlt_data.stages.ingest import IngestConfig, ingest
print(ingest(Lake(sys.argv[1]), IngestConfig(source=sys.argv[2])).model_dump_json())
"""


@pytest.mark.slow
def test_a_killed_ingest_of_traces_ends_with_the_rows_of_an_uninterrupted_one(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    lines = []
    for number in range(6000):
        row = {"question": f"{number % 4000} + 1?", "answer": str(number % 4000 + 1 + number // 5000)}
        lines.append(json.dumps({**row, "completion": f"<think>\nStep {number}.</think>{number}"}))
        if number % 7 == 0:
            lines.append("{broken")
    for part in range(3):
        (folder / f"{part}.jsonl").write_text("\n".join(lines[part * 2300 : (part + 1) * 2300]), "utf-8")
    whole, killed = Lake(tmp_path / "whole"), Lake(tmp_path / "killed")
    expected = ingest(whole, IngestConfig(source=str(folder)))
    assert {"questions": 4000, "traces": 6000}.items() <= expected.tables.items()
    result = run_killed(
        make_command(INGEST, killed.uri, str(folder)),
        draw_delays(seed=11, kills=3, longest=0.1),
        at_work=watch_table(killed, "traces", (1, 2, 2)),
        env={"RLT_DATA_COMMIT_SECONDS": "0.02"},
    )
    assert result.kills >= 2, "no kill fell into the stage's work"
    assert_equal_lakes(whole, killed)
    summary = StageSummary.model_validate_json(result.stdout)
    assert summary.tables == expected.tables
    assert (summary.rows_in, summary.rejected) == (expected.rows_in, expected.rejected)
    assert summary.notes == expected.notes
    del summary.extra["rows_per_second"], expected.extra["rows_per_second"]
    assert summary.extra == expected.extra
