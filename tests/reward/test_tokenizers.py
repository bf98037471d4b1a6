"""One refusal of students whose tokens are not the teacher's, for scoring, training and plans."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from rlt_data.errors import UsageError
from rlt_data.reward.tokenizers import refuse_other_tokens
from rlt_data.training.from_scratch.tiny_model import build_tiny_tokenizer


def test_equal_tokenizers_pass_and_others_are_refused_by_name(tiny_tokenizer: Any) -> None:
    refuse_other_tokens(tiny_tokenizer, tiny_tokenizer)
    refuse_other_tokens(tiny_tokenizer, copy.deepcopy(tiny_tokenizer))
    other = build_tiny_tokenizer(["other", "words"])
    for _ in range(2):  # the second answer comes from the cache
        with pytest.raises(UsageError, match="token by token, but the two tokenizers differ in") as refusal:
            refuse_other_tokens(tiny_tokenizer, other, where="student small")
        assert refusal.value.where == "student small"
        assert "lambda_kl = 0" in (refusal.value.remedy or "")
