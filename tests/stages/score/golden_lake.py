"""A lake that holds the golden cases, ready to be scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlt_data.formats import load_format, parse_teacher_completion
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.models import resolve_model


def read_cases(golden: Path) -> dict[str, Any]:
    cases: dict[str, Any] = json.loads((golden / "cases.json").read_text(encoding="utf-8"))
    return cases


def write_golden_format(golden: Path, folder: Path) -> str:
    parameters = read_cases(golden)["parameters"]
    path = folder / "golden.toml"
    path.write_text(
        'base = "stratos"\n'
        f"[teacher]\nsystem = {json.dumps(parameters['teacher_system_prompt'])}\n"
        f"[student]\nsystem = {json.dumps(parameters['student_system_prompt'])}\n",
        encoding="utf-8",
    )
    return str(path)


def build_golden_lake(golden: Path, folder: Path, *, imported: bool = False) -> tuple[Lake, str]:
    """The lake, and the path of the format that the cases are rendered in; trace ids are golden-0 and on."""
    lake = Lake(folder / "lake")
    format_path = write_golden_format(golden, folder)
    teacher = resolve_model(str(golden / "teacher"), role="teacher")
    questions: dict[str, dict[str, Any]] = {}
    traces = []
    for number, case in enumerate(read_cases(golden)["cases"]):
        # Two cases may share a question and differ in its solution: the id covers both here.
        question_id = hash_content(case["question"], case["solution"])
        questions[question_id] = {
            "question_id": question_id,
            "question": case["question"],
            "solution": case["solution"],
            "solution_rendered": False,
        }
        parsed = parse_teacher_completion(load_format(format_path), case["completion"])
        writer = (
            {}
            if imported
            else {
                "teacher": "golden-teacher",
                "teacher_model": teacher.model,
                "teacher_revision": teacher.revision,
            }
        )
        traces.append(
            {
                "trace_id": f"golden-{number}",
                "question_id": question_id,
                "sample_index": 0,
                "origin": "imported" if imported else "generated",
                "completion": case["completion"],
                "think": parsed.think,
                "state": parsed.state,
                "truncated": parsed.state == "missing_close",
                **writer,
            }
        )
    import polars as pl

    lake.table("questions").append(pl.DataFrame(list(questions.values())), run_id="golden")
    lake.table("traces").append(pl.DataFrame(traces), run_id="golden")
    return lake, format_path
