"""The same code on a GPU; skipped by name where there is none."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from rlt_data.formats import ConversationFormat
from rlt_data.reward.scoring.scorer import Scorer, TokenScores
from rlt_data.reward.scoring.scoring_model import ScoringModel
from rlt_data.reward.scoring.texts import ScoreRequest

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def move(scoring: ScoringModel, dtype: torch.dtype) -> ScoringModel:
    return replace(scoring, model=copy.deepcopy(scoring.model).to("cuda", dtype))


def score_all(scorer: Scorer, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
    return [result for result in scorer.score(requests) if isinstance(result, TokenScores)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.5)], ids=str)
@pytest.mark.parametrize("pack_tokens", [64, None])
def test_the_gpu_gives_what_the_cpu_gives(
    short_format: ConversationFormat,
    student: ScoringModel,
    teacher: ScoringModel,
    requests_: Sequence[ScoreRequest],
    dtype: torch.dtype,
    tolerance: float,
    pack_tokens: int | None,
) -> None:
    expected = score_all(Scorer(short_format, [student], teacher, exact=True), requests_)
    scorer = Scorer(
        short_format, [move(student, dtype)], move(teacher, dtype), exact=True, pack_tokens=pack_tokens
    )
    assert scorer.students[0].mode == "packed"
    for a, b in zip(score_all(scorer, requests_), expected, strict=True):
        for left, right in (
            (a.solution_logprobs, b.solution_logprobs),
            (a.think_student, b.think_student),
            (a.think_teacher, b.think_teacher),
            (a.think_divergences, b.think_divergences),
        ):
            np.testing.assert_allclose(left or [], right or [], atol=tolerance)
