"""The reward for a correct answer: what gives 1, what gives 0, and what gives none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from rlt_data.formats import load_format
from rlt_data.tasks.grading.base import GraderName
from rlt_data.tasks.grading.opening import open_graders
from rlt_data.training.rewards.correctness import CorrectnessReward

OPEN, CLOSE = "<|begin_of_thought|>\n\n", "<|end_of_thought|>\n\n"
SOLUTION, END = "<|begin_of_solution|>", "<|end_of_solution|>"
WHOLE = f"{OPEN}1 + 1 = 2.{CLOSE}{SOLUTION}The answer is \\boxed{{2}}.{END}"


def reward(
    *completions: str, grader: GraderName = "integer", log: Any = None, penalty: float = 0.0, **columns: Any
) -> CorrectnessReward:
    """Reward completions of one question; returns the function, which holds what it scored."""
    count = len(completions)
    values = {"question": "1 + 1 =", "solution": "The answer is \\boxed{2}.", "answer": None, **columns}
    with open_graders([grader]) as graders:
        function = CorrectnessReward(
            graders[grader], format=load_format("stratos"), policy_tokenizer=None, format_penalty=penalty
        )
        given = {name: [value] * count for name, value in values.items()}
        result = function([""] * count, completions, log_metric=log, **given)
    assert result == [scored.reward for scored in function.last]
    return function


def list_rewards(function: CorrectnessReward) -> list[float | None]:
    return [scored.reward for scored in function.last]


def test_only_a_right_answer_is_rewarded() -> None:
    wrong, unclosed = WHOLE.replace("{2}", "{3}"), WHOLE.replace(CLOSE, "")
    silent, cut = f"{OPEN}Hmm.{CLOSE}{SOLUTION}{END}", WHOLE[: WHOLE.index(CLOSE)]
    assert list_rewards(reward(WHOLE, wrong, unclosed, silent, cut, "")) == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_the_format_counts_only_where_the_recipe_names_a_penalty() -> None:
    unclosed = WHOLE.removesuffix(END)
    plain = "The answer is \\boxed{2}."
    assert list_rewards(reward(WHOLE, unclosed, plain)) == [1.0, 1.0, 1.0]
    function = reward(WHOLE, unclosed, plain, "", penalty=-0.5)
    assert list_rewards(function) == [1.0, 0.5, 0.5, -0.5]
    assert [scored.parts["format_penalty"] for scored in function.last] == [0.0, -0.5, -0.5, -0.5]


def test_a_question_without_a_true_answer_gives_no_reward() -> None:
    assert list_rewards(reward(WHOLE, solution="Because it is so, and for many other reasons too.")) == [None]


def test_any_expression_that_solves_countdown_is_right() -> None:
    metadata = json.dumps({"numbers": [2, 3, 4], "target": 24})
    texts = [WHOLE.replace("\\boxed{2}", f"\\boxed{{{text}}}") for text in ("2*3*4", "4*(3*2)", "24", "4*6")]
    function = reward(*texts, grader="countdown", metadata=metadata, answer="2*3*4")
    assert list_rewards(function) == [1.0, 1.0, 0.0, 0.0]


def test_shares_of_verdicts_are_metrics() -> None:
    logged: dict[str, float] = {}
    reward(WHOLE, WHOLE.replace("{2}", "{3}"), WHOLE[:40], "", log=logged.__setitem__)
    assert logged["correctness/correct"] == logged["correctness/wrong"] == 0.25
    assert logged["correctness/unclosed_think"] + logged["correctness/no_answer"] == 0.5
    assert logged["correctness/no_answer_share"] == 0.5
    assert logged["rlt/unscored_share"] == 0.0


def test_math_compares_values() -> None:
    pytest.importorskip("math_verify")
    other = WHOLE.replace("{2}", "{\\frac{4}{2}}")
    assert list_rewards(reward(WHOLE, other, grader="math")) == [1.0, 1.0]


def test_an_answer_that_cannot_be_compared_is_not_right() -> None:
    pytest.importorskip("math_verify")
    junk = WHOLE.replace("{2}", "{\x04c15D3h}")
    long = WHOLE.replace("{2}", "{" + "7" * 300 + "}")
    logged: dict[str, float] = {}
    assert list_rewards(reward(junk, long, WHOLE, grader="math", log=logged.__setitem__)) == [0.0, 0.0, 1.0]
    assert logged["correctness/failed"] == pytest.approx(2 / 3)


class WordTokenizer:
    """Decodes every text to the same completion, whatever its ids."""

    eos_token_id = pad_token_id = 0

    def decode(self, ids: Sequence[int], **_: object) -> str:
        return WHOLE


class ShortTrainer:
    """Regards completions of three tokens as truncated."""

    def is_truncated(self, ids: Sequence[int]) -> bool:
        return len(ids) == 3


def test_a_truncated_completion_is_not_right() -> None:
    function = reward(WHOLE)
    function.tokenizer = WordTokenizer()
    function.follow(ShortTrainer())
    same = {"question": ["1 + 1 ="] * 2, "solution": ["\\boxed{2}"] * 2, "answer": ["2"] * 2}
    assert function([""] * 2, [WHOLE] * 2, [[5, 6], [5, 6, 7]], **same) == [1.0, 0.0]
