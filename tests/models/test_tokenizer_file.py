"""A tokenizer splits text as its tokenizer.json defines, whatever class its configuration names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizer_models import PUBLISHED_NAMES, SMALL, SMALL_NAMES, TokenizerModels

from rlt_data.models.tokenizer_file import follows_file

TEXTS = ("Hello world, 1234 \n\n\n na\u00efve <think>\nx</think> \u4e2d\u6587", "  two  spaces\n", "")


@pytest.mark.parametrize("name", [*SMALL_NAMES, *PUBLISHED_NAMES])
def test_a_loaded_tokenizer_gives_the_tokens_of_its_file(
    tokenizer_models: TokenizerModels, name: str
) -> None:
    """DeepSeek's names LlamaTokenizerFast, with which transformers 5 drops every space."""
    from tokenizers import Tokenizer

    filed = Tokenizer.from_file(str(tokenizer_models.find_source(name) / "tokenizer.json"))
    loaded = tokenizer_models.load(name)
    for text in TEXTS:
        ids = loaded(text, add_special_tokens=False)["input_ids"]
        assert ids == filed.encode(text, add_special_tokens=False).ids
        assert loaded.decode(ids) == text


def test_a_class_that_splits_text_differently_is_detected(
    tokenizer_models: TokenizerModels, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    source = SMALL / "strips_thinking"
    assert "LlamaTokenizerFast" in (source / "tokenizer_config.json").read_text(encoding="utf-8")
    assert not follows_file(AutoTokenizer.from_pretrained(source), source)
    loaded = tokenizer_models.load("strips_thinking")
    assert follows_file(loaded, source)
    # Saved with a trained model, it is the same again.
    loaded.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.tokenize(TEXTS[0]) == loaded.tokenize(TEXTS[0])
    assert again.chat_template == loaded.chat_template


def test_a_folder_without_a_readable_file_is_left_to_the_loader(
    tokenizer_models: TokenizerModels, tmp_path: Path
) -> None:
    loaded = tokenizer_models.load("plain")
    assert follows_file(loaded, tmp_path)
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"normalizer": {"type": "Unheard"}}), encoding="utf-8"
    )
    assert follows_file(loaded, tmp_path)
