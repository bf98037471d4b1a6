"""vLLM loads the tokenizer that tokenizer.json describes; vLLM's own use of it is in test_vllm.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizer_models import PUBLISHED_NAMES, TokenizerModels

from rlt_data.engines.vllm.tokenizer import provide_tokenizer

TEXT = "She sold 1234 eggs,  na\u00efve\n\n<think>\nx</think>"


@pytest.mark.parametrize("name", ["plain", "strips_thinking", *PUBLISHED_NAMES])
def test_the_provided_tokenizer_follows_its_file(tokenizer_models: TokenizerModels, name: str) -> None:
    """`strips_thinking` and DeepSeek's name a class that drops spaces."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    source = tokenizer_models.find_source(name)
    ids = Tokenizer.from_file(str(source / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids
    with provide_tokenizer(source) as directory:
        loaded = AutoTokenizer.from_pretrained(directory)
        assert loaded.encode(TEXT, add_special_tokens=False) == ids
        assert loaded.decode(ids) == TEXT
        assert (directory == source) == (name in ("plain", "qwen3"))
    assert Path(directory).exists() == (directory == source)
