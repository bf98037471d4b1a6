"""Students whose tokens differ from the teacher's are refused in one way by scoring, training and plans."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from rlt_data.errors import UsageError
from rlt_data.reward.tokenizers import refuse_other_tokens


def test_equal_tokenizers_pass_and_others_are_refused_by_name(tiny_tokenizer: Any) -> None:
    refuse_other_tokens(tiny_tokenizer, tiny_tokenizer)
    refuse_other_tokens(tiny_tokenizer, copy.deepcopy(tiny_tokenizer))
    parts = json.loads(tiny_tokenizer.backend_tokenizer.to_str()) | {"normalizer": {"type": "Lowercase"}}
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(parts)))
    for _ in range(2):  # the second answer comes from the cache
        with pytest.raises(UsageError, match="token by token, but the two tokenizers differ in") as refusal:
            refuse_other_tokens(tiny_tokenizer, other, where="student small")
        assert refusal.value.where == "student small"
        assert "lambda_kl = 0" in (refusal.value.remedy or "")
