"""From characters to tokens: the tokens of a span, and whether two tokenizers split text alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from rlt_data.errors import ModelError
from rlt_data.formats.layout import name_tokenizer


@dataclass(frozen=True)
class EncodedText:
    """Token ids of a rendered text and the half-open character span of each token."""

    token_ids: list[int]
    offsets: list[tuple[int, int]]


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[EncodedText]:
    """Tokenize rendered texts with character offsets; no special tokens are added to those in the text.

    Raises `ModelError` where the tokenizer cannot give character offsets.
    """
    if not texts:
        return []
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            "the tokenizer gives no character offsets, so spans cannot be assigned to tokens",
            where=name_tokenizer(tokenizer),
            remedy="save the tokenizer in its fast form (a tokenizer.json beside the model)",
        )
    whole = _find_whole_offsets(tokenizer)
    if whole is not None:
        found = whole.encode_batch(list(texts), add_special_tokens=False)
        return [EncodedText(list(text.ids), [(int(a), int(b)) for a, b in text.offsets]) for text in found]
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        truncation=False,
        padding=False,
        verbose=False,
    )
    return [
        EncodedText(list(ids), [(int(start), int(end)) for start, end in offsets])
        for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]


_whole_offsets: WeakKeyDictionary[Any, tuple[int, Any]] = WeakKeyDictionary()


def _find_whole_offsets(tokenizer: Any) -> Any:
    """Copy the backend so that offsets include white space; None where they do already.

    The tokenizers of Llama 3 and GPT-2 leave the space before a word out of its offsets, and give a token
    of spaces an empty span.
    """
    # Tokens added to a tokenizer make its copy out of date.
    size = len(tokenizer)
    if tokenizer not in _whole_offsets or _whole_offsets[tokenizer][0] != size:
        parts = json.loads(tokenizer.backend_tokenizer.to_str())
        whole = None
        if _untrim(parts.get("post_processor")):
            from tokenizers import Tokenizer

            whole = Tokenizer.from_str(json.dumps(parts))
            whole.no_padding()
            whole.no_truncation()
        _whole_offsets[tokenizer] = (size, whole)
    return _whole_offsets[tokenizer][1]


def _untrim(processor: Any) -> bool:
    """Switch off the trimming of offsets in a post-processor and its parts; return whether any had it on."""
    if not isinstance(processor, dict):
        return False
    inner = [_untrim(part) for part in processor.get("processors", [])]
    trims = bool(processor.get("trim_offsets"))
    if trims:
        processor["trim_offsets"] = False
    return trims or any(inner)


def select_token_span(offsets: Sequence[tuple[int, int]], span: tuple[int, int]) -> range:
    """Select the tokens whose characters lie wholly inside `span`, a half-open range of characters.

    A token that straddles an edge of the span is outside, and so is a token of zero width. Tokens that share
    one character (each holds some of its bytes) are inside if the character is. Returns an empty range where
    no token is inside.
    """
    begin, end = span
    inside = [i for i, (first, last) in enumerate(offsets) if begin <= first < last <= end]
    return range(inside[0], inside[-1] + 1) if inside else range(0)


def compare_tokenizers(a: Any, b: Any) -> str | None:
    """Return why two tokenizers cannot be compared token by token, or None where they can.

    They can where ordinary text becomes the same ids: same vocabulary, merges, normalization and splitting.
    Added tokens may differ (a distilled model often adds some): a text that contains one becomes different
    ids, which scoring detects for that text.
    """
    left, right = _describe(a), _describe(b)
    for part, about in _PARTS.items():
        if left[part] != right[part]:
            return f"the two tokenizers differ in {about}{_count_difference(part, left[part], right[part])}"
    return None


_PARTS = {
    "type": "kind or settings",
    "normalizer": "how they normalize text",
    "pre_tokenizer": "how they split text before the vocabulary applies",
    "vocab": "vocabulary",
    "merges": "merges",
}


def _describe(tokenizer: Any) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return {
            "type": ["slow"],
            "normalizer": None,
            "pre_tokenizer": None,
            "vocab": tokenizer.get_vocab(),
            "merges": None,
        }
    parts = json.loads(backend.to_str())
    model = parts["model"]
    return {
        "type": [
            model.get(key) for key in ("type", "ignore_merges", "byte_fallback", "continuing_subword_prefix")
        ],
        "normalizer": parts.get("normalizer"),
        "pre_tokenizer": parts.get("pre_tokenizer"),
        "vocab": model.get("vocab"),
        "merges": [
            tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model.get("merges", [])
        ],
    }


def _count_difference(part: str, left: Any, right: Any) -> str:
    if part == "vocab" and isinstance(left, dict) and isinstance(right, dict):
        apart = sum(right.get(token) != index for token, index in left.items())
        return f": {len(left)} and {len(right)} tokens, {apart} of the first are absent or have other ids"
    if part == "merges":
        return f": {len(left)} and {len(right)}"
    if part == "type":
        return f": {left[0]} and {right[0]}"
    return ""
