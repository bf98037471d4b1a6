"""What `rlt-data compare` prints, and the files that it writes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import polars as pl
import pytest
from command_line import QuickProgram
from evaluated_lake import append_evaluations, number_questions

from rlt_data.lake import Lake

HOSTILE = "m|\x1b[2J<b>*[x](http://a)`"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    append_evaluations(lake, "base", "aime24", number_questions("c" * 5 + "ww" + "c" + "w" * 22))
    append_evaluations(lake, "student", "aime24", number_questions("c" * 7 + "w" * 23))
    append_evaluations(lake, "base", "math", {f"q{i}": "cwww" for i in range(20)})
    append_evaluations(lake, "student", "math", {f"q{i}": "cccw" for i in range(20)})
    append_evaluations(lake, "student", "other", number_questions("c"))
    return lake


def test_a_row_for_each_model_and_a_column_for_each_task(lake: Lake, quick: QuickProgram) -> None:
    shown = quick.succeed("compare", "base", "student", "--quiet")
    lines = shown.splitlines()
    start = lines.index("Scores in percent, with 95% intervals (questions x samples; extraction stated)")
    assert " ".join(lines[start + 1].split()) == "model aime24 (30 x 1) math (20 x 4) other (1 x 1) overall"
    base = "base 20.0 [9.5, 37.3] 25.0 [11.2, 46.9] - 22.5 [13.8, 36.4]"
    assert " ".join(lines[start + 2].split()) == base
    assert lines[start + 3].startswith("student  23.3 [11.8, 40.9]")
    assert "Differences from base in points, on the same questions" in lines
    (aime,) = [line for line in lines if line.startswith("aime24   student")]
    assert aime.split()[2:6] == ["30", "+3.3", "[-10.4,", "+17.3]"]
    assert " no " in aime
    assert ">= " in aime
    assert "7 right against 6 of 30 questions is no evidence that student and base differ" in shown


def test_markdown(lake: Lake, quick: QuickProgram, tmp_path: Path) -> None:
    shown = quick.succeed("compare", "base", "student", "--markdown")
    assert "| model | aime24 (30 x 1) | math (20 x 4) | other (1 x 1) | overall |" in shown
    assert "| base | 20.0 \\[9.5, 37.3] |" in shown
    assert "compare: " not in shown
    assert shown == quick.succeed("compare", "base", "student", "--format", "markdown")
    said = quick.succeed("compare", "base", "student", "--markdown", "--output", "table.md")
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == shown
    assert "compare: already finished" in said


def test_json_has_the_summary_and_the_rows(lake: Lake, quick: QuickProgram) -> None:
    found = json.loads(quick.succeed("compare", "base", "student", "--json"))
    assert found["stage"] == "compare"
    rows = found["comparisons"]
    assert len(rows) == found["rows_out"] == 2 * 2 + 1 + 2 + 2 + 1
    assert [row["task"] for row in rows if row["baseline"]] == ["aime24", "math", "overall"]


def test_rows_as_csv_json_and_parquet(lake: Lake, quick: QuickProgram, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(quick.succeed("compare", "base", "student", "-f", "csv"))))
    assert [row["model"] for row in rows[:2]] == ["base", "student"]
    assert float(rows[0]["score"]) == 0.2
    assert json.loads(quick.succeed("compare", "base", "student", "-f", "json"))[0]["model"] == "base"
    quick.succeed("compare", "base", "student", "-f", "parquet", "-o", "rows.parquet")
    stored = pl.read_parquet(tmp_path / "rows.parquet")
    assert stored.columns == lake.table("comparisons").schema.arrow.names
    assert stored.height == len(rows)


def test_spreadsheet_safe_quotes_formulas(lake: Lake, quick: QuickProgram) -> None:
    append_evaluations(lake, "=1+1", "aime24", number_questions("c" * 30))
    command = ("compare", "=1+1", "base", "-f", "csv")
    assert "--spreadsheet-safe" in quick(*command).stderr
    done = quick(*command, "--spreadsheet-safe")
    assert (done.returncode, done.stderr) == (0, "")
    assert next(csv.DictReader(io.StringIO(done.stdout)))["model"] == "'=1+1"
    assert "for CSV" in quick.fail(2, "compare", "--spreadsheet-safe")


def test_parquet_needs_a_file_before_anything_runs(lake: Lake, quick: QuickProgram) -> None:
    assert "--output FILE" in quick.fail(2, "compare", "-f", "parquet")
    assert "exclude each other" in quick.fail(2, "compare", "--markdown", "-f", "csv")
    assert not [run for run in lake.runs() if run.stage == "compare"]


def test_unknown_models_are_wrong_usage(lake: Lake, quick: QuickProgram) -> None:
    assert "did you mean 'student'" in quick.fail(2, "compare", "studnt")


def test_names_break_neither_the_terminal_nor_the_markdown(lake: Lake, quick: QuickProgram) -> None:
    append_evaluations(lake, HOSTILE, "aime24", number_questions("c" * 30))
    for arguments in (["--baseline", HOSTILE], ["--markdown"], ["--markdown", "--baseline", HOSTILE]):
        assert "\x1b" not in quick.succeed("compare", *arguments)
    table = quick.succeed("compare", "--markdown", "--baseline", HOSTILE)
    row = next(line for line in table.splitlines() if line.startswith("| m\\|"))
    assert "\\<b>\\*\\[x](http://a)\\`" in row
