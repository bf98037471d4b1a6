"""Tiny models from scratch: a small Qwen2 configuration with random weights, and its tokenizer.

They run the whole pipeline without a download or a GPU. The tokenizer's vocabulary is a list of pieces
(words, numbers, tags, and whole constant texts such as a system prompt), one token each, which keeps texts
short, and all bytes, so that it can encode any text.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, model_validator

from rlt_data.atomic_files import write_aside
from rlt_data.bounds import STRICT
from rlt_data.errors import UsageError, require_module
from rlt_data.models.loading import hide_progress_bars

END_TOKEN = "<|im_end|>"
MOST_PARAMETERS = 10**9
START_TOKEN = "<|im_start|>"
PADDING_TOKEN = "<|endoftext|>"

# ChatML without the newline after the end token: one token fewer per message.
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


class TinyShape(BaseModel):
    """The shape of a tiny Qwen2 model. The default has about 0.15 million parameters."""

    model_config = STRICT

    hidden_size: int = Field(64, ge=8, le=16_384, description="Width of the residual stream.")
    layers: int = Field(2, ge=1, le=256, description="Transformer layers.")
    heads: int = Field(4, ge=1, le=256, description="Attention heads.")
    key_value_heads: int = Field(
        4, ge=1, le=256, description="Heads of keys and values; must divide `heads`."
    )
    feed_forward: int = Field(256, ge=8, le=65_536, description="Width of the feed-forward layers.")
    context: int = Field(4096, ge=64, le=10**6, description="Maximum text length in tokens.")
    initializer_range: float = Field(
        0.05, gt=0, le=10, description="Standard deviation of the random weights."
    )

    @model_validator(mode="after")
    def _check(self) -> TinyShape:
        if self.hidden_size % (2 * self.heads):
            raise ValueError("hidden_size must be a multiple of twice the heads: rotary embeddings use pairs")
        if self.heads % self.key_value_heads:
            raise ValueError("key_value_heads must divide heads")
        parameters = self.layers * self.hidden_size * (4 * self.hidden_size + 3 * self.feed_forward)
        if parameters > MOST_PARAMETERS:
            raise ValueError(
                f"a tiny model has at most {MOST_PARAMETERS:,} parameters; this one has {parameters:,}"
            )
        return self


def build_tiny_tokenizer(pieces: Iterable[str], *, context: int = 4096) -> Any:
    """Build a Qwen2 tokenizer of bytes and `pieces`, with a ChatML template.

    A piece (a word, a number, a tag, a whole constant phrase) is one token wherever it occurs, the longest
    first; every other character becomes its bytes. Like every Qwen2 tokenizer it normalizes text to Unicode
    NFC. Returns a fast tokenizer whose token ids depend on the arguments only.
    """
    tokenizers = require_module("tokenizers", "models")
    transformers = require_module("transformers", "models")
    special = [PADDING_TOKEN, START_TOKEN, END_TOKEN]
    vocabulary = {token: i for i, token in enumerate(special)}
    for character in sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[character] = len(vocabulary)
    tokenizer = transformers.Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        eos_token=END_TOKEN,
        pad_token=PADDING_TOKEN,
        extra_special_tokens=[START_TOKEN],
        chat_template=CHAT_TEMPLATE,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    added = [piece for piece in dict.fromkeys(pieces) if piece and piece not in vocabulary]
    tokenizer.add_tokens([tokenizers.AddedToken(piece, normalized=False) for piece in added])
    return tokenizer


def build_tiny_model(shape: TinyShape, tokenizer: Any, *, seed: int) -> Any:
    """Build a Qwen2 model of `shape` with random float32 weights, the same for the same seed."""
    torch = require_module("torch", "models")
    transformers = require_module("transformers", "models")
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        intermediate_size=shape.feed_forward,
        max_position_embeddings=shape.context,
        initializer_range=shape.initializer_range,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.Qwen2ForCausalLM(config)


def check_replaceable(directory: Path, marker: str) -> None:
    """Raise `UsageError` where `directory` contains files, but not `marker`: it must not be replaced."""
    if not os.path.lexists(directory) or (directory / marker).is_file():
        return
    if not directory.is_dir() or any(directory.iterdir()):
        raise UsageError(
            "a tiny model cannot be saved here: the path exists, and rlt-data did not write it",
            where=str(directory),
            remedy="choose another directory, or move the existing files away",
        )


def save_model(model: Any, tokenizer: Any, directory: Path, *, marker: tuple[str, str] | None = None) -> None:
    """Save weights (safetensors), configuration and tokenizer as a model directory.

    The save is atomic: files are written to a temporary directory, which is then renamed. `marker` is the
    name and text of one more file, by which the directory is recognized later.
    """
    with write_aside(directory) as draft:
        draft.mkdir()
        with hide_progress_bars():
            model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        if marker is not None:
            (draft / marker[0]).write_text(marker[1], encoding="utf-8")
            check_replaceable(directory, marker[0])
