"""Ready completions of two models, evaluated, compared and traced back by the real command line."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import QuickProgram


def write_completions(path: Path, right: int, total: int) -> None:
    lines = [
        json.dumps(
            {
                "question": f"What is {i} + {i}?",
                "answer": str(2 * i),
                "completion": f"It is \\boxed{{{2 * i if i < right else 2 * i + 1}}}.",
            }
        )
        for i in range(total)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_evaluate_compare_and_lineage(quick: QuickProgram, tmp_path: Path) -> None:
    for model, right in (("base", 6), ("student", 7)):
        write_completions(tmp_path / f"{model}.jsonl", right, 30)
        quick.succeed(
            "evaluate",
            *("--model", model, "--task", "own", "--completions", f"{model}.jsonl", "--processes", "1"),
        )
    shown = quick.succeed("compare", "base", "student")
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert {"base 20.0 [9.5, 37.3]", "student 23.3 [11.8, 40.9]"} <= set(lines)
    assert "own: 7 right against 6 of 30 questions is no evidence that student and base differ" in shown
    found = json.loads(quick.succeed("compare", "base", "student", "--json"))
    assert found["status"] == "already finished"
    (difference,) = [row for row in found["comparisons"] if row["baseline"] == "base"]
    assert difference["settings_differ"] is None
    assert not difference["separated"]
    assert "evaluate" in quick.succeed("lineage", "compare")
    query = "select * from evaluation_lineage where model = 'student' order by source_row"
    rows = json.loads(quick.succeed("sql", query, "-f", "json"))
    assert [row["verdict"] for row in rows] == ["correct"] * 7 + ["wrong"] * 23
    row = quick.succeed("lineage", rows[0]["evaluation_id"][:16])
    assert "verdict correct" in row
    assert "student.jsonl" in row


RECIPE = """
lake = "lake"
[[evaluate]]
model = "base"
task = "own"
completions = "base.jsonl"
processes = 1
[[evaluate]]
model = "student"
task = "own"
completions = "student.jsonl"
processes = 1
[compare]
models = ["base", "student"]
"""


def test_a_recipe_prints_the_tables(quick: QuickProgram, tmp_path: Path) -> None:
    write_completions(tmp_path / "base.jsonl", 2, 4)
    write_completions(tmp_path / "student.jsonl", 4, 4)
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    shown = quick.succeed("run", "recipe.toml")
    assert "avg@k" in shown
    assert "Scores in percent, with 95% intervals" in shown
    assert "Differences from base in points" in shown
