"""Models with random weights and texts of given lengths: the cases of the scoring benchmark."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rlt_data.formats import ConversationFormat, load_format
from rlt_data.reward.scoring.scoring_model import ScoringModel
from rlt_data.reward.scoring.texts import ScoreRequest

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}"
    "{%- endfor %}"
)
WORDS = ["".join(random.Random(i).choices("abcdefghijklmnopqrstuvwxyz", k=4)) for i in range(900)]


@dataclass(frozen=True)
class Shape:
    """A Qwen2 architecture; embeddings are tied."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    feed_forward: int


@dataclass(frozen=True)
class Case:
    """One benchmark case; approximate lengths in tokens."""

    name: str
    shape: Shape
    questions: int
    explanations: int
    question_tokens: int
    think_tokens: int
    solution_tokens: int


BODY = (512, 12, 8, 2, 1376)
CASES = {
    "110M-152k": Case(
        "110M parameters, 151,936 vocabulary, ~650 tokens, 8 a question",
        Shape(151936, *BODY),
        1,
        8,
        140,
        395,
        40,
    ),
    "48M-32k": Case(
        "48M parameters, 32,000 vocabulary, ~650 tokens, 8 a question",
        Shape(32000, *BODY),
        1,
        8,
        140,
        395,
        40,
    ),
    "48M-2000": Case(
        "48M parameters, 32,000 vocabulary, ~2,000 tokens, 4 a question",
        Shape(32000, *BODY),
        1,
        4,
        140,
        1640,
        40,
    ),
    "1M": Case(
        "1.2M parameters, 4,096 vocabulary, ~300 tokens, 8 a question",
        Shape(4096, 128, 4, 4, 2, 384),
        4,
        8,
        60,
        180,
        30,
    ),
}


def build_format(teacher: str = "Explain.", student: str = "Think.") -> ConversationFormat:
    """Build the paper's format with short system prompts, so that texts are mostly explanation."""
    format = load_format("stratos")
    return format.model_copy(
        update={
            "teacher": format.teacher.model_copy(update={"system": teacher}),
            "student": format.student.model_copy(update={"system": student}),
        }
    )


def build_models(shape: Shape, *, seed: int = 0) -> tuple[ScoringModel, ScoringModel]:
    """Build a student and a teacher of one shape, float32, with one tokenizer."""
    format = build_format()
    tags = (*re.findall(r"<.*?>", format.teacher.prefill + format.student.assistant), format.teacher.close)
    tokenizer = _build_tokenizer(tags)
    assert len(tokenizer) <= shape.vocabulary
    return (
        ScoringModel("student", _build_model(shape, seed), tokenizer),
        ScoringModel("teacher", _build_model(shape, seed + 1), tokenizer),
    )


def build_requests(case: Case, *, seed: int = 0) -> list[ScoreRequest]:
    """Build questions with explanations up to a quarter longer or shorter than the case's length."""
    source = random.Random(seed)
    requests = []
    for question in range(case.questions):
        text, solution = _write(source, case.question_tokens), _write(source, case.solution_tokens)
        for sample in range(case.explanations):
            length = round(case.think_tokens * source.uniform(0.75, 1.25))
            requests.append(ScoreRequest(f"{question}-{sample}", text, solution, _write(source, length)))
    return requests


def _write(source: random.Random, words: int) -> str:
    return " ".join(source.choices(WORDS, k=words))


def _build_tokenizer(tags: Sequence[str]) -> Any:
    """One token for each word with the space before it and for each tag; other text is split into bytes."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *WORDS, *(f"Ġ{word}" for word in WORDS)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    words = pre_tokenizers.Split(Regex(r" ?[a-z]+"), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(tag, special=True) for tag in ("<|im_start|>", "<|im_end|>", *tags)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", chat_template=CHAT_TEMPLATE
    )


def _build_model(shape: Shape, seed: int) -> Any:
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        intermediate_size=shape.feed_forward,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        initializer_range=0.05,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config).eval()
