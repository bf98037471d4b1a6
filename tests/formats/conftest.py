"""A small real tokenizer (byte-level BPE, ChatML template), so that nothing needs to be downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "She sells 16 - 3 - 4 = 9 eggs a day, so the answer is \\boxed{18}.\n\nAdd the numbers, step by step.",
    "<|begin_of_thought|> <|end_of_thought|> <|begin_of_solution|> <|end_of_solution|> <think> </think>",
    "naïve ✓ ½ the the the question and the solution and the explanation",
] * 4


def _build_tokenizer(template: str | None = CHATML, extra: tuple[str, ...] = ()) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", *extra],
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=4096
    )
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    return _build_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return _build_tokenizer()
