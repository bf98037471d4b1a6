"""The benchmark's baseline gives the golden numbers of the public implementation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks.baseline import score_baseline
from benchmarks.workload import build_format
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlt_data.formats import parse_teacher_completion
from rlt_data.reward.scoring.scoring_model import ScoringModel
from rlt_data.reward.scoring.texts import ScoreRequest


def test_baseline_gives_the_golden_numbers(golden: Path) -> None:
    cases = json.loads((golden / "cases.json").read_text(encoding="utf-8"))
    parameters = cases["parameters"]
    format = build_format(parameters["teacher_system_prompt"], parameters["student_system_prompt"])
    student, teacher = (
        ScoringModel(
            name,
            AutoModelForCausalLM.from_pretrained(golden / name, dtype=torch.float32).eval(),
            AutoTokenizer.from_pretrained(golden / name),
            parameters[f"temperature_{name}"],
        )
        for name in ("student", "teacher")
    )
    requests = []
    for number, case in enumerate(cases["cases"]):
        parsed = parse_teacher_completion(format, case["completion"])
        closed = parsed.state != "missing_close"
        requests.append(
            ScoreRequest(str(number), case["question"], case["solution"], parsed.think or "", closed)
        )
    scores = score_baseline(format, student, teacher, requests)
    for case, score in zip(cases["cases"], scores, strict=True):
        expected = case["expected"]
        assert score.solution_logprobs == pytest.approx(expected["solution_logprobs"], abs=1e-4)
        gaps = [t - s for t, s in zip(score.think_teacher, score.think_student, strict=True)]
        assert gaps == pytest.approx(expected["think_kl"], abs=1e-4)
