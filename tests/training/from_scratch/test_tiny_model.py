"""Tiny models: any text survives the tokenizer, weights follow the seed, directories load."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rlt_data.models import load_model, load_tokenizer, resolve_model
from rlt_data.training.from_scratch.tiny_model import (
    TinyShape,
    build_tiny_model,
    build_tiny_tokenizer,
    save_model,
)

torch = pytest.importorskip("torch")
PIECES = [" 12", "12", " -3", " -", ", then", "First", "Say it:", "Say it: all", "<|tag|>"]
TOKENIZER = build_tiny_tokenizer(PIECES)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tokenizer as the rest of the program loads it from a model directory."""
    directory = tmp_path_factory.mktemp("tiny") / "model"
    shape = TinyShape(hidden_size=16, heads=2, key_value_heads=2, feed_forward=32)
    save_model(build_tiny_model(shape, TOKENIZER, seed=0), TOKENIZER, directory)
    return load_tokenizer(resolve_model(str(directory), role="student"))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_composed_text_is_parsed_into_its_parts(text: str) -> None:
    text = unicodedata.normalize("NFC", text)
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == text


@given(st.lists(st.sampled_from([*PIECES, "1", "é", " ", "\n", "a"]), max_size=12))
def test_loading_changes_no_token(loaded: Any, parts: list[str]) -> None:
    text = "".join(parts)
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]


def test_pieces_are_single_tokens_the_longest_first() -> None:
    text = "Say it: 12 - 12 -3, then<|tag|>First"
    tokens = [TOKENIZER.decode([token]) for token in TOKENIZER(text)["input_ids"]]
    assert tokens == ["Say it:", " 12", " -", " 12", " -3", ", then", "<|tag|>", "First"]
    assert len(TOKENIZER("Say it: all")["input_ids"]) == 1


def test_padding_and_end_are_two_tokens() -> None:
    assert TOKENIZER.pad_token_id != TOKENIZER.eos_token_id
    rendered = TOKENIZER.apply_chat_template(
        [{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=True
    )
    assert rendered == "<|im_start|>user\na<|im_end|><|im_start|>assistant\n"


def test_weights_follow_the_seed_and_leave_the_global_draws_alone() -> None:
    shape = TinyShape(hidden_size=16, heads=2, key_value_heads=1, feed_forward=32)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = build_tiny_model(shape, TOKENIZER, seed=1).state_dict()
    assert torch.equal(torch.rand(3), expected)
    again = build_tiny_model(shape, TOKENIZER, seed=1).state_dict()
    other = build_tiny_model(shape, TOKENIZER, seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_a_saved_model_loads_like_any_local_model(tmp_path: Path) -> None:
    shape = TinyShape(hidden_size=16, heads=2, key_value_heads=2, feed_forward=32)
    model = build_tiny_model(shape, TOKENIZER, seed=0)
    save_model(model, TOKENIZER, tmp_path / "tiny")
    save_model(model, TOKENIZER, tmp_path / "tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"], "nothing half-written is left"
    identity = resolve_model(str(tmp_path / "tiny"), role="student")
    loaded, tokenizer = load_model(identity, dtype="float32", device="cpu"), load_tokenizer(identity)
    ids = tokenizer("Say it: 12 = é", return_tensors="pt")["input_ids"]
    assert torch.equal(loaded(input_ids=ids).logits, model.eval()(input_ids=ids).logits)


@pytest.mark.parametrize("wrong", [{"hidden_size": 20, "heads": 4}, {"key_value_heads": 3}, {"layer": 2}])
def test_invalid_shapes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        TinyShape(**wrong)


def test_a_shape_of_billions_of_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="a tiny model has at most"):
        TinyShape(hidden_size=8192, layers=200, feed_forward=32768)
