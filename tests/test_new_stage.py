"""CONTRIBUTING shows all that a new stage needs: its code blocks are put into a copy of the tree."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from small_lake import append_made, make_lake, make_trace

ROOT = Path(__file__).parents[1]
FOLDERS = ("rlt_data", "cli", "recipes", "tests", "docs")
RECIPE = 'lake = "lake"\n[measure]\nwhere = "sample_index = 0"\n'


def read_blocks() -> dict[str, str]:
    """Read the code blocks of the paragraph, by what they add."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paragraph = text[text.index("**Stage.**") : text.index("**Training.**")]
    blocks = re.findall(r"```python\n(.*?)```", paragraph, re.DOTALL)
    names = ("stage", "declaration", "schema", "kill_case")
    assert len(blocks) == len(names)
    return dict(zip(names, blocks, strict=True))


def insert(path: Path, block: str, *, before: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, block + before), encoding="utf-8")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with the new stage: its folder, its test, its entry in the registry, its table."""
    tree = tmp_path_factory.mktemp("tree")
    ignore = shutil.ignore_patterns("__pycache__", "lake_0_1", "golden")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tree)
    (tree / "installed").mkdir()
    for name, folder in (("rlt_data_cli", "cli"), ("rlt_data_recipes", "recipes")):
        (tree / "installed" / name).symlink_to(tree / folder)
    blocks = read_blocks()
    (tree / "rlt_data" / "stages" / "measure").mkdir()
    (tree / "rlt_data" / "stages" / "measure" / "__init__.py").write_text(blocks["stage"], encoding="utf-8")
    (tree / "tests" / "stages" / "measure").mkdir()
    (tree / "tests" / "stages" / "measure" / "kill_case.py").write_text(blocks["kill_case"], encoding="utf-8")
    registry = tree / "rlt_data" / "stages" / "registry.py"
    insert(
        registry,
        textwrap.indent(blocks["declaration"].rstrip() + ",\n", "    "),
        before='    StageDeclaration(\n        name="score",',
    )
    schemas = tree / "rlt_data" / "schemas"
    insert(schemas / "curation.py", blocks["schema"] + "\n", before="DISTILLATION = TableSchema")
    insert(schemas / "__init__.py", "LENGTHS, ", before="QUESTIONS, RANKINGS")
    insert(schemas / "__init__.py", "        LENGTHS,\n", before="        REJECTS,\n        RUNS,\n")
    return tree


def run(tree: Path, *command: str, folder: Path | None = None, code: int = 0) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'installed'}",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, *command], cwd=folder or tree, env=environment, capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


PROGRAM = ("-c", "from rlt_data_cli.main import main; main()")


def test_the_new_stage_is_a_command_with_its_options(tree: Path) -> None:
    assert re.search(
        r"^  measure +Measure how long each explanation is\.$", run(tree, *PROGRAM, "--help"), re.M
    )
    text = run(tree, *PROGRAM, "measure", "--help")
    assert "SQL predicate over traces: use only these." in text
    assert "--force" in text


def test_the_new_stage_runs_as_a_command_and_in_a_recipe(tree: Path, tmp_path: Path) -> None:
    lake, _ = make_lake(tmp_path, questions=2, samples=2)
    append_made(lake, "generate", "traces", [make_trace(9, 0, think="four")], label="nine")
    summary = json.loads(run(tree, *PROGRAM, "measure", "--json", folder=tmp_path))
    assert (summary["status"], summary["rows_in"], summary["tables"]) == ("finished", 5, {"lengths": 5})
    answer = json.loads(
        run(
            tree,
            *PROGRAM,
            *("sql", "SELECT characters FROM lengths WHERE trace_id = 'q9t0'", "--format", "json"),
            folder=tmp_path,
        )
    )
    assert answer == [{"characters": 4}]
    (tmp_path / "measured.toml").write_text(RECIPE, encoding="utf-8")
    plan = json.loads(run(tree, *PROGRAM, "run", "measured.toml", "--dry-run", "--json", folder=tmp_path))[
        "plan"
    ]
    assert [(step["stage"], step["state"]) for step in plan] == [("measure", "new")]
    (measured,) = json.loads(run(tree, *PROGRAM, "run", "measured.toml", "--json", folder=tmp_path))
    assert (measured["stage"], measured["rows_out"]) == ("measure", 3)
    again = json.loads(run(tree, *PROGRAM, "measure", "--json", folder=tmp_path))
    assert (again["status"], again["run_id"]) == ("already finished", summary["run_id"])


def test_the_new_stage_is_in_the_pages(tree: Path) -> None:
    run(tree, "docs/make_pages.py")
    commands = (tree / "docs" / "cli.md").read_text(encoding="utf-8")
    assert "## rlt-data measure\n\nIn Python: `rlt_data.stages.measure.measure`" in commands
    graph = (tree / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert "| `traces` | **measure** | `lengths` | Measure how long each explanation is. |" in graph


@pytest.mark.slow
def test_the_new_stage_is_killed_and_resumes(tree: Path) -> None:
    output = run(
        tree,
        *(
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/faults/test_kill_stages.py",
            "-k",
            "[measure]",
        ),
    )
    assert "1 passed" in output
