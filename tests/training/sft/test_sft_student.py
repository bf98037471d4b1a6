"""Supervised fine-tuning of a student on distillation examples."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from rlt_data.errors import LakeError
from rlt_data.lake import Lake
from rlt_data.models import resolve_model
from rlt_data.stages.rank.stage import RankConfig, rank
from rlt_data.stages.substitute.stage import SubstituteConfig, substitute
from rlt_data.training.sft.config import SftConfig
from rlt_data.training.sft.stage import train_sft

pytest.importorskip("trl")

TRAINER = {
    "use_cpu": True,
    "gradient_checkpointing": False,
    "per_device_train_batch_size": 8,
    "max_steps": 2,
    "learning_rate": 1e-2,
}


@pytest.fixture
def sets(lake: Lake, models: dict[str, str]) -> dict[str, str]:
    """Two sets of distillation examples in the lake, in the order of their making: runs by name."""
    runs = {}
    for name, where in (("half", "trace_id < '8'"), ("all", None)):
        rank(lake, RankConfig(policy="random(1)", where=where))
        runs[name] = substitute(lake, SubstituteConfig(student=models["student"], ranked_by="none")).run_id
    return runs


def make_config(models: dict[str, str], output: Path, **changes: str) -> SftConfig:
    return SftConfig(role="student", model=models["student"], output=str(output), trainer=TRAINER, **changes)


def test_a_student_learns_from_one_set_of_examples(
    models: dict[str, str], lake: Lake, sets: dict[str, str], tmp_path: Path
) -> None:
    newest = train_sft(lake, make_config(models, tmp_path))
    named = train_sft(lake, make_config(models, tmp_path, distillation=sets["half"]))
    counts = dict.fromkeys(sets.values(), 0)
    for run in lake.table("distillation").scan().collect()["run_id"]:
        counts[run] += 1
    assert newest.extra["examples"] == counts[sets["all"]] == 24
    assert [newest.extra["distillation"], named.extra["distillation"]] == [sets["all"], sets["half"]]
    assert 0 < named.extra["examples"] == counts[sets["half"]] < 24
    assert newest.run_id != named.run_id
    identity = resolve_model(str(newest.extra["model"]), role="student")
    assert identity.revision != resolve_model(models["student"], role="student").revision
    again = train_sft(lake, make_config(models, tmp_path, distillation=sets["all"]))
    assert again.run_id == newest.run_id, "the newest set by name is the same training"


def test_a_student_without_examples_is_refused(models: dict[str, str], lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="substitute"):
        train_sft(lake, make_config(models, tmp_path))


def test_a_teacher_has_no_set_of_examples() -> None:
    with pytest.raises(ValidationError, match=r"remove sft\.distillation"):
        SftConfig(model="m", output="o", distillation="a")
