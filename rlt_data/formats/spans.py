"""From characters to tokens: which tokens lie in a span, and whether two tokenizers agree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from rlt_data.errors import ModelError


@dataclass(frozen=True)
class EncodedText:
    """Token ids of a rendered text and the half-open character span of each token."""

    token_ids: list[int]
    offsets: list[tuple[int, int]]


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[EncodedText]:
    """Tokenize rendered texts with offsets; special tokens are those the text holds, none is added.

    Raises `ModelError` where the tokenizer cannot give character offsets.
    """
    if not texts:
        return []
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            "the tokenizer gives no character offsets, so spans cannot be found",
            where=str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__),
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
    """A copy of the backend that leaves white space in its tokens' spans; None where it does so already.

    The tokenizers of Llama 3 and GPT-2 cut the space before a word from its span, and leave a token of
    spaces none at all.
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
    """Switch the trimming of offsets off in a post-processor and those it holds; whether any had it on."""
    if not isinstance(processor, dict):
        return False
    inner = [_untrim(part) for part in processor.get("processors", [])]
    trims = bool(processor.get("trim_offsets"))
    if trims:
        processor["trim_offsets"] = False
    return trims or any(inner)


def select_token_span(offsets: Sequence[tuple[int, int]], span: tuple[int, int]) -> range:
    """Select the tokens whose characters lie wholly inside `span`.

    A token that straddles an edge belongs to neither side, and a zero-width token to none. Tokens that
    share one character (its bytes apart) are all inside where the character is. Empty where no token is.
    """
    begin, end = span
    inside = [i for i, (first, last) in enumerate(offsets) if begin <= first < last <= end]
    return range(inside[0], inside[-1] + 1) if inside else range(0)


def compare_tokenizers(a: Any, b: Any) -> str | None:
    """Say why token-by-token comparison of two tokenizers is impossible; None where it is possible.

    Possible means that ordinary text becomes the same ids: same vocabulary, merges, normalisation and
    splitting. Added tokens may differ (a distilled model often adds some): a text that holds one gives
    different ids, which the scorer sees on that text.
    """
    left, right = _describe(a), _describe(b)
    for part, about in _PARTS.items():
        if left[part] != right[part]:
            return f"the two tokenizers differ in {about}{_count_difference(part, left[part], right[part])}"
    return None


_PARTS = {
    "type": "kind or settings",
    "normalizer": "how they normalise text",
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
        return f": {len(left)} and {len(right)} tokens, {apart} of the first are absent or numbered otherwise"
    if part == "merges":
        return f": {len(left)} and {len(right)}"
    if part == "type":
        return f": {left[0]} and {right[0]}"
    return ""
