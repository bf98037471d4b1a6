"""The whole pipeline by the real command line: from a file of problems to a distillation set and SQL."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_line import Program

PROBLEMS = [
    {
        "question": f"Ann has {a} eggs and buys {b} more. How many has she?",
        "answer": f"{a} + {b} = {a + b}\n#### {a + b}",
    }
    for a, b in [(2, 3), (4, 5), (7, 1), (6, 6)]
]
BAD_ROWS = ["{not json", '{"answer": "3 #### 3"}', json.dumps(PROBLEMS[0])]

SETTINGS = """
lake = "lake"
[models.qwen7b]
model = "{student}"
[models.my-teacher]
model = "{teacher}"
"""

RECIPE = """
lake = "lake-of-recipe"

[ingest]
source = "problems.jsonl"

[generate]
teacher = "my-teacher"
samples = 2
max_tokens = 8
allow_truncated = true
engine = "transformers"
format = "r1"

[score]
students = ["qwen7b"]

[rank]

[substitute]
student = "qwen7b"
format = "r1"

[export]
path = "out.jsonl"
form = "jsonl"
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("transformers")
    from tiny_models import save_tiny_model

    folder = tmp_path_factory.mktemp("models")
    return {
        "teacher": save_tiny_model(folder / "teacher", seed=1, max_position_embeddings=4096),
        "student": save_tiny_model(folder / "student", seed=2, max_position_embeddings=4096),
    }


@pytest.fixture
def project(program: Program, models: dict[str, Path], tmp_path: Path) -> Program:
    """A folder with problems, of which three rows are bad, and settings that name two tiny models."""
    lines = [json.dumps(problem) for problem in PROBLEMS] + BAD_ROWS
    (tmp_path / "problems.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "rlt-data.toml").write_text(SETTINGS.format(**models), encoding="utf-8")
    return program


def run_json(program: Program, *arguments: str) -> dict:
    """Run a stage with --json, which must print JSON and nothing else."""
    return json.loads(program.succeed(*arguments, "--json"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_problems_to_a_distillation_set(project: Program, models: dict[str, Path], tmp_path: Path):
    ingested = run_json(project, "ingest", "problems.jsonl")
    assert (ingested["tables"]["questions"], ingested["rejected"]) == (4, 3)

    sampling = ("--samples", "2", "--max-tokens", "8", "--allow-truncated", "--engine", "transformers")
    generated = run_json(project, "generate", "--teacher", "my-teacher", "--format", "r1", *sampling)
    assert generated["rows_out"] == 8
    assert generated["status"] == "finished"
    again = run_json(project, "generate", "--teacher", "my-teacher", "--format", "r1", *sampling)
    assert again["status"] == "already finished"
    assert again["run_id"] == generated["run_id"]

    scored = run_json(project, "score", "--student", "qwen7b", "--exact")
    assert scored["rows_out"] == 8
    run = json.loads(project.succeed("log", scored["run_id"], "--json"))
    student = next(model for model in run["models"] if model["role"] == "student")
    assert student["name"] == "qwen7b"
    assert student["model"] == str(models["student"])
    assert student["revision"]

    derived = run_json(project, "reward", "--lambda", "0", "--alpha", "0")
    assert derived["rows_out"] == 8
    rewards = json.loads(
        project.succeed(
            "sql", "select reward, solution_logprob_avg, format_penalty from rewards", "-f", "json"
        )
    )
    for row in rewards:
        assert row["reward"] == pytest.approx(row["solution_logprob_avg"] + row["format_penalty"], abs=1e-6)

    assert run_json(project, "rank", "--policy", "best-of-n(1)")["extra"]["selected"] == 4
    assert run_json(project, "substitute", "--student", "qwen7b", "--format", "r1")["rows_out"] == 4
    project.succeed("export", "set", "--form", "dataset")
    project.succeed("export", "set.jsonl", "--form", "messages")

    examples = [
        json.loads(line) for line in (tmp_path / "set.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    solutions = {problem["answer"].split("\n")[0] for problem in PROBLEMS}
    for example in examples:
        roles = [message["role"] for message in example["messages"]]
        assert roles[-2:] == ["user", "assistant"]
        assert any(solution in example["messages"][-1]["content"] for solution in solutions)
    card = (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    assert "qwen7b" in card
    assert str(models["student"]) not in card, "the card must not show local paths"

    joined = project.succeed(
        "sql",
        "select count(distinct question_id) as n from scores join questions using (question_id)",
        "-f",
        "csv",
    )
    assert joined == "n\n4\n"
    tokens = json.loads(
        project.succeed(
            "sql",
            "select trace_id, string_agg(token, '' order by position) as text from token_scores "
            "where part = 'solution' group by trace_id",
            "-f",
            "json",
        )
    )
    assert len(tokens) == 8
    tree = project.succeed("lineage", "export")
    assert tree.index("export") < tree.index("substitute") < tree.index("rank") < tree.index("ingest")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_recipe_runs_once_and_reports_what_is_done(project: Program, tmp_path: Path):
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    before = json.loads(project.succeed("run", "recipe.toml", "--dry-run", "--json"))
    assert [step["state"] for step in before["plan"]] == ["new", *["waits"] * 5]
    assert not (tmp_path / "lake-of-recipe").exists()

    first = json.loads(project.succeed("run", "recipe.toml", "--json"))
    assert [summary["stage"] for summary in first] == [
        "ingest",
        "generate",
        "score",
        "rank",
        "substitute",
        "export",
    ]
    assert {summary["status"] for summary in first} == {"finished"}
    assert len((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()) == 4

    after = json.loads(project.succeed("run", "recipe.toml", "--dry-run", "--json"))
    assert [step["state"] for step in after["plan"]] == ["finished"] * 6
    assert [step["run_id"] for step in after["plan"]] == [summary["run_id"] for summary in first]
    shown = project.succeed("run", "recipe.toml", "--dry-run")
    assert "all done" in shown

    changed = project.succeed("run", "recipe.toml", "--set", "rank.policy=random(1, seed=3)", "--dry-run")
    assert re.search(r"^score +done  ", changed, re.MULTILINE)
    assert "3 of 6 stages to run" in changed


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("ingest", "absent.jsonl"), 1, "absent.jsonl"),
        (("ingest", "problems.jsonl", "--layout", "gsm9k"), 2, "gsm8k"),
        (("generate", "--teacher", "my-teacher"), 2, "rlt-data ingest"),
        (("generate", "--teacher", "no-such-model"), 1, "no-such-model"),
        (("generate", "--teacher", "my-teacher", "--top-p", "0"), 2, "--top-p"),
        (("generate",), 2, "--teacher"),
        (("score", "--student", "owner/never-cached"), 1, "HF_HUB_OFFLINE"),
        (("rank", "--policy", "best-of-m(1)"), 2, "best-of-n"),
        (("export", "out"), 1, "substitute"),
        (("run", "absent.toml"), 2, "absent.toml"),
        (("lineage", "zzz"), 1, "rlt-data init"),
        (("tables", "--lake", "ftp://host/lake"), 1, "ftp"),
    ],
)
def test_errors_say_what_to_do_and_never_show_a_traceback(
    arguments: tuple[str, ...], code: int, message: str, project: Program
):
    assert message in project.fail(code, *arguments)


def test_real_problems_are_ingested(program: Program, shared_data: Path):
    for file, questions in (("gsm8k_test.jsonl", 1319), ("math500.jsonl", 500), ("aime24.jsonl", 30)):
        summary = run_json(program, "ingest", str(shared_data / file))
        assert summary["rows_in"] == questions
        assert summary["tables"]["questions"] + summary["rejected"] == questions
