"""GRPO of a student on correct answers: prompts, graders, rows, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from rlt_data.errors import UsageError
from rlt_data.formats import load_format, render_student_prompt
from rlt_data.lake import Lake
from rlt_data.models import load_tokenizer, resolve_model
from rlt_data.settings import Settings, use_settings
from rlt_data.stages.ingest import IngestConfig, ingest
from rlt_data.training.rl.config import StudentGrpoConfig
from rlt_data.training.rl.reward_types import LakeQuestion, find_reward_type
from rlt_data.training.rl.stage import train_grpo

pytest.importorskip("trl")

TRAINER = {"gradient_checkpointing": False, "use_cpu": True, "learning_rate": 1e-3}
SMALL = {"steps": 2, "questions_per_step": 2, "group_size": 4, "max_tokens": 8, "max_prompt_tokens": 200}
TASK = {"prompt": "State it. {question}", "grader": "integer"}


def make_config(models: dict[str, str], output: Path, **changes: Any) -> StudentGrpoConfig:
    values = {**SMALL, "model": models["student"], "output": str(output), "reward": {"grader": "integer"}}
    return StudentGrpoConfig(**{**values, "trainer": TRAINER, **changes})


def test_every_completion_is_a_row_and_groups_without_spread_are_counted(
    models: dict[str, str], lake: Lake, tmp_path: Path
) -> None:
    summary = train_grpo(lake, make_config(models, tmp_path))
    rows = lake.table("rollouts").scan().collect()
    assert rows.height == 2 * 2 * 4
    assert set(rows["reward"]) <= {0.0, 1.0}
    spread = rows.group_by("group_id").agg((pl.col("reward").max() > pl.col("reward").min()).alias("spread"))
    assert summary.extra["groups"] == 4
    assert summary.extra["groups_without_spread"] == spread.filter(~pl.col("spread")).height
    run = lake.run(summary.run_id)
    assert [model["role"] for model in run.models] == ["student"]
    assert run.counts["extra"]["groups"] == 4
    names = set(lake.table("metrics").scan().collect()["name"])
    assert {"frac_reward_zero_std", "correctness/correct", "rlt/unscored_share"} <= names
    again = train_grpo(lake, make_config(models, tmp_path))
    assert (again.status, again.run_id) == ("already finished", summary.run_id)


def test_the_prompt_is_the_students_and_a_tasks_where_one_is_named(
    models: dict[str, str], tmp_path: Path
) -> None:
    format = load_format("stratos")
    tokenizer = load_tokenizer(resolve_model(models["student"], role="student"))
    question = LakeQuestion("id", "1 + 1 =", "\\boxed{2}", None, None)
    plain = find_reward_type(make_config(models, tmp_path))
    assert (
        plain.render_prompt(format, tokenizer, question)
        == render_student_prompt(format, tokenizer, "1 + 1 =").text
    )
    with use_settings(Settings(tasks={"sums": TASK})):
        named = find_reward_type(make_config(models, tmp_path, task="sums", reward={}))
    text = named.render_prompt(format, tokenizer, question)
    assert text == render_student_prompt(format, tokenizer, "State it. 1 + 1 =").text
    assert named.identify(format)["grader"] == "integer"
    assert plain.identify(format) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "gpqa_diamond", "reward": {}}, "cannot be graded by the grader choice"),
        ({"reward": {"grader": "code"}}, "cannot be graded by the grader code"),
        ({"task": "no-such-task"}, "there is no task 'no-such-task'"),
        ({"max_tokens": 400}, "the student's context is 512: lower rl.max_prompt_tokens"),
        ({"trainer": {**TRAINER, "temperature": 1.0}}, "decided by rl.temperature"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_runs(
    models: dict[str, str], lake: Lake, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train_grpo(lake, make_config(models, tmp_path, **changes))
    assert [run.stage for run in lake.runs()] == ["ingest"]


@pytest.mark.parametrize("wrong", [{"format_penalty": 0.5}, {"partial_credit": 0.1}, {"grader": "own"}])
def test_there_is_no_credit_that_the_recipe_does_not_name(
    models: dict[str, str], tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError):
        make_config(models, tmp_path, reward=wrong)


def test_a_countdown_question_without_its_puzzle_is_a_reject(models: dict[str, str], tmp_path: Path) -> None:
    rows = [
        {"question": "Make 6 of 2 and 3.", "answer": "2*3", "numbers": [2, 3], "target": 6},
        {"question": "Make 7 of 3 and 4.", "answer": "3+4"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lake = Lake(tmp_path / "lake")
    ingest(lake, IngestConfig(source=str(tmp_path / "rows.jsonl")))
    train_grpo(lake, make_config(models, tmp_path, steps=1, reward={"grader": "countdown"}))
    reject = lake.table("rejects").scan().collect().row(0, named=True)
    assert (reject["reason"], reject["source"]) == ("no_puzzle", "questions")
    assert lake.table("rollouts").scan().collect()["question_id"].n_unique() == 1
