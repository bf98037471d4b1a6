"""Control tokens: the special tokens that structure a conversation, such as the one that ends a turn."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any
from weakref import WeakKeyDictionary

from rlt_data.errors import ModelError
from rlt_data.formats.definition import ConversationFormat
from rlt_data.formats.layout import name_tokenizer
from rlt_data.formats.rendering import render_student_text
from rlt_data.formats.spans import encode_texts

_patterns: WeakKeyDictionary[Any, tuple[int, re.Pattern[str] | None]] = WeakKeyDictionary()


def require_end_token(format: ConversationFormat, tokenizer: Any, end_token_ids: Collection[int] = ()) -> str:
    """Return the end token with which a rendered student text ends, so that training labels contain it.

    `end_token_ids` are further tokens at which the model stops, from its generation configuration. Raises
    `ModelError` where the template ends a turn without an end token: a model trained on such texts would
    never stop.
    """
    text = render_student_text(format, tokenizer, "Q", "T", "S").text
    last = encode_texts(tokenizer, [text])[0].token_ids[-1]
    if last == tokenizer.eos_token_id or last in end_token_ids:
        return str(tokenizer.convert_ids_to_tokens(last))
    raise ModelError(
        f"the chat template ends the assistant's turn with {text[-30:]!r}, which is not an end token",
        where=name_tokenizer(tokenizer),
        remedy="set eos_token in tokenizer_config.json, or eos_token_id in generation_config.json, to the "
        "token that ends a turn in the template, or let the template write one",
    )


def find_control_token(tokenizer: Any, text: str) -> str | None:
    """Return the first special token that `text` contains, such as `<|im_end|>`, or None."""
    size = len(tokenizer.added_tokens_decoder)
    cached = _patterns.get(tokenizer)
    if cached is None or cached[0] != size:
        special = [str(t.content) for t in tokenizer.added_tokens_decoder.values() if t.special and t.content]
        longest_first = sorted(special, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest_first))) if special else None
        cached = _patterns[tokenizer] = (size, pattern)
    found = cached[1].search(text) if cached[1] is not None else None
    return found[0] if found else None
