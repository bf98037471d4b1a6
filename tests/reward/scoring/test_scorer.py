"""The scorer against a plain float64 computation, and independent of sizes and order of the work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reward.dense import compute_logprobs, pick_divergences, pick_logprobs
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from rlt_data.errors import UsageError
from rlt_data.formats import ConversationFormat
from rlt_data.reward.estimators import Estimator
from rlt_data.reward.forward.memory import TileSize
from rlt_data.reward.rewards import score_texts
from rlt_data.reward.scoring.scorer import FailedScore, Scorer, TokenScores
from rlt_data.reward.scoring.scoring_model import ScoringModel
from rlt_data.reward.scoring.texts import ScoreRequest, ScoringText, build_student_texts, build_teacher_texts
from rlt_data.reward.settings import RewardSettings

TOLERANCE = 1e-5


def score_all(scorer: Scorer, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
    results = list(scorer.score(requests))
    assert all(isinstance(result, TokenScores) for result in results)
    return [result for result in results if isinstance(result, TokenScores)]


def list_numbers(scores: TokenScores) -> np.ndarray:
    lists = (scores.solution_logprobs, scores.think_student, scores.think_teacher, scores.think_divergences)
    return np.concatenate([np.asarray(values or [], dtype=np.float64) for values in lists])


@pytest.fixture(scope="module")
def reference(
    short_format: ConversationFormat,
    student: ScoringModel,
    teacher: ScoringModel,
    requests_: Sequence[ScoreRequest],
) -> list[dict[str, np.ndarray]]:
    """Per request: the numbers of a float64 dense computation."""
    rows = []
    read = build_student_texts(short_format, student.tokenizer, requests_)
    taught = build_teacher_texts(short_format, teacher.tokenizer, requests_)
    for left, right in zip(read, taught, strict=True):
        assert isinstance(left, ScoringText)
        assert isinstance(right, ScoringText)
        s = compute_logprobs(student.model, left.token_ids, student.temperature)
        t = compute_logprobs(teacher.model, right.token_ids, teacher.temperature)
        rows.append(
            {
                "solution": pick_logprobs(s, left.token_ids, left.solution).numpy(),
                "student": pick_logprobs(s, left.token_ids, left.think).numpy(),
                "teacher": pick_logprobs(t, right.token_ids, right.think).numpy(),
                "full": pick_divergences(t, s, right.think, left.think).numpy(),
            }
        )
    return rows


def test_equals_a_float64_dense_computation(
    short_format: ConversationFormat,
    student: ScoringModel,
    teacher: ScoringModel,
    requests_: Sequence[ScoreRequest],
    reference: list[dict[str, np.ndarray]],
) -> None:
    for exact in (False, True):
        scorer = Scorer(short_format, [student], teacher, exact=exact)
        for scores, expected in zip(score_all(scorer, requests_), reference, strict=True):
            np.testing.assert_allclose(scores.solution_logprobs, expected["solution"], atol=TOLERANCE)
            np.testing.assert_allclose(scores.think_student, expected["student"], atol=TOLERANCE)
            np.testing.assert_allclose(scores.think_teacher or [], expected["teacher"], atol=TOLERANCE)
            if exact:
                np.testing.assert_allclose(scores.think_divergences or [], expected["full"], atol=TOLERANCE)
            else:
                assert scores.think_divergences is None


@pytest.mark.parametrize("estimator", ["k1", "k3", "full"])
def test_rewards_of_every_estimator(
    short_format: ConversationFormat,
    student: ScoringModel,
    teacher: ScoringModel,
    requests_: Sequence[ScoreRequest],
    reference: list[dict[str, np.ndarray]],
    estimator: Estimator,
) -> None:
    chosen = RewardSettings(estimator=estimator)
    scorer = Scorer(short_format, [student], teacher, exact=estimator == "full")
    results = score_texts(scorer, requests_, chosen)
    for result, request, expected in zip(results, requests_, reference, strict=True):
        gap = expected["student"] - expected["teacher"]
        divergence = {"k1": -gap, "k3": np.exp(gap) - 1 - gap, "full": expected["full"]}[estimator]
        kl_avg, kl_max = (divergence.mean(), divergence.max()) if len(divergence) else (0.0, 0.0)
        r_ss = expected["solution"].mean() + 0.01 * expected["solution"].min()
        penalty = 0.0 if request.closed else -1.0
        assert result.parts is not None
        assert result.parts.kl_avg == pytest.approx(kl_avg, abs=1e-4, rel=1e-5)
        reward = r_ss - 3.0 * (kl_avg + 0.01 * kl_max) + penalty
        assert result.parts.reward == pytest.approx(reward, abs=1e-4, rel=1e-5)


@settings(max_examples=8, deadline=None)
@given(
    order=st.permutations(range(9)),
    pack_tokens=st.sampled_from([1, 40, 97, 300, 4096]),
    batch_tokens=st.sampled_from([1, 700, 65536]),
    tile=st.builds(TileSize, st.sampled_from([1, 7, 64, 512]), st.sampled_from([13, 100, 4096])),
    share_prefixes=st.booleans(),
)
def test_sizes_and_order_of_the_work_change_nothing(
    short_format: ConversationFormat,
    student: ScoringModel,
    teacher: ScoringModel,
    requests_: Sequence[ScoreRequest],
    order: list[int],
    pack_tokens: int,
    batch_tokens: int,
    tile: TileSize,
    share_prefixes: bool,
) -> None:
    plain = Scorer(short_format, [student], teacher, exact=True, pack_tokens=1, share_prefixes=False)
    expected = {scores.key: list_numbers(scores) for scores in score_all(plain, requests_)}
    scorer = Scorer(
        short_format,
        [student],
        teacher,
        exact=True,
        pack_tokens=pack_tokens,
        batch_tokens=batch_tokens,
        tile=tile,
        share_prefixes=share_prefixes,
    )
    shuffled = [requests_[index] for index in order]
    for request, scores in zip(shuffled, score_all(scorer, shuffled), strict=True):
        assert scores.key == request.key
        np.testing.assert_allclose(list_numbers(scores), expected[scores.key], atol=TOLERANCE)


def test_several_students_in_one_pass(
    short_format: ConversationFormat,
    student: ScoringModel,
    teacher: ScoringModel,
    requests_: Sequence[ScoreRequest],
) -> None:
    other = replace(teacher, name="other")
    both = score_all(Scorer(short_format, [student, other], teacher, exact=True), requests_)
    assert [scores.student for scores in both] == ["student", "other"] * len(requests_)
    for index, one in enumerate((student, other)):
        alone = score_all(Scorer(short_format, [one], teacher, exact=True), requests_)
        for a, b in zip(both[index::2], alone, strict=True):
            np.testing.assert_allclose(list_numbers(a), list_numbers(b), atol=TOLERANCE)


def test_a_model_in_training_stays_as_it_was(
    short_format: ConversationFormat,
    student: ScoringModel,
    teacher: ScoringModel,
    requests_: Sequence[ScoreRequest],
) -> None:
    expected = score_all(Scorer(short_format, [student], teacher), requests_)
    teacher.model.train().requires_grad_(True)
    before = teacher.model.config._attn_implementation
    try:
        scores = score_all(Scorer(short_format, [student], teacher), requests_)
        assert teacher.model.training
        assert teacher.model.config._attn_implementation == before
        assert all(parameter.grad is None for parameter in teacher.model.parameters())
    finally:
        teacher.model.eval().requires_grad_(False)
    assert scores == expected


def test_texts_that_cannot_be_scored_are_named(
    short_format: ConversationFormat, student: ScoringModel, teacher: ScoringModel
) -> None:
    requests = [
        ScoreRequest("fine", "add", "so 7", "then"),
        ScoreRequest("long", "add", "so 7", "then " * 5000),
        ScoreRequest("blank", "add", "  ", "then"),
        ScoreRequest("broken", "add", "so 7", "then \ud800"),
    ]
    results = list(Scorer(short_format, [student], teacher).score(requests))
    reasons = {r.failure.key: r.failure.reason for r in results if isinstance(r, FailedScore)}
    assert reasons == {"long": "over_context", "broken": "invalid_text", "blank": "blank_solution"}
    assert isinstance(results[0], TokenScores)


def test_other_tokenizers_are_refused_unless_the_student_is_alone(
    short_format: ConversationFormat, student: ScoringModel, teacher: ScoringModel
) -> None:
    parts = json.loads(student.tokenizer.backend_tokenizer.to_str()) | {"normalizer": {"type": "Lowercase"}}
    other_tokens = replace(
        student,
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(json.dumps(parts)),
            chat_template=student.tokenizer.chat_template,
        ),
    )
    with pytest.raises(UsageError, match="token by token"):
        Scorer(short_format, [other_tokens], teacher)
    Scorer(short_format, [other_tokens])
