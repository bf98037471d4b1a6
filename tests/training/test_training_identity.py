"""Fingerprints of trainings stay those of version 0.1: its runs are still finished, or resume."""

from __future__ import annotations

import pytest

from rlt_data.lake.fingerprint import compute_fingerprint
from rlt_data.stages.runtime.contract import StageConfig
from rlt_data.training.rl.config import GrpoConfig, StudentGrpoConfig
from rlt_data.training.sft.config import SftConfig


def fingerprint(stage: str, config: StageConfig) -> str:
    return compute_fingerprint(
        stage,
        scheme_version=1,
        config=config.list_identity(),
        inputs=[],
        models=[],
        identity={"format": "text"},
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (SftConfig(model="base", output="out"), "88cd83b0469f3ea2293fc55045cc41b8"),
        (
            SftConfig(
                model="base",
                output="out",
                format="r1",
                seed=4,
                where="state = 'closed'",
                limit=9,
                max_tokens=512,
                keep_checkpoints=2,
                trainer={"learning_rate": 1e-5, "report_to": "none"},
                lora={"r": 4},
            ),
            "f816330c797e489b6cbe8ee1d029629b",
        ),
    ],
)
def test_sft(config: SftConfig, expected: str) -> None:
    assert fingerprint("sft", config) == expected
    assert "role" not in config.list_identity()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GrpoConfig(model="base", students=("s",), output="out"), "1b9f0820b7f0dbb009c67766967914a7"),
        (
            GrpoConfig(model="base", output="out", reward={"type": "correctness"}),
            "3a31948920133db55449047d1bcb55db",
        ),
        (
            GrpoConfig(
                model="base",
                students=("one", "two"),
                output="out",
                seed=2,
                where="dataset = 'x'",
                steps=10,
                micro_batch_size=2,
                reward={
                    "type": "rlt",
                    "estimator": "k3",
                    "alpha": 0.1,
                    "lambda_kl": 2.0,
                    "penalty": -2.0,
                    "clip_kl": 4.0,
                    "combine": "minimum",
                    "shuffle": True,
                },
                teacher_logprobs="policy",
                student_device="cpu",
                trainer={"beta": 0.04, "ddp_timeout": 9},
                lora={"r": 8},
            ),
            "48d27cb37e5fa5486ab91f9ec2c0c8f6",
        ),
    ],
)
def test_grpo(config: GrpoConfig, expected: str) -> None:
    assert fingerprint("grpo", config) == expected


def test_a_student_is_another_run_than_a_teacher() -> None:
    teacher = SftConfig(model="base", output="out")
    student = SftConfig(model="base", output="out", role="student")
    assert fingerprint("sft", teacher) != fingerprint("sft", student)


def test_a_students_rl_is_another_run_than_a_teachers() -> None:
    student = StudentGrpoConfig(model="base", output="out")
    teacher = GrpoConfig(model="base", output="out", reward={"type": "correctness"})
    assert fingerprint("grpo", student) != fingerprint("grpo", teacher)
    assert not [name for name in student.list_identity() if "teacher" in name or "student_" in name]


def test_settings_of_correctness_make_another_run() -> None:
    prints = {
        fingerprint("grpo", config)
        for settings in ({}, {"grader": "integer"}, {"format_penalty": -0.5})
        for config in (
            StudentGrpoConfig(model="base", output="out", reward=settings),
            GrpoConfig(model="base", output="out", reward={"type": "correctness", **settings}),
        )
    }
    assert len(prints) == 6
