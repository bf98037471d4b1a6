"""Control tokens: those that structure a conversation, above all the one that ends a turn."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any
from weakref import WeakKeyDictionary

from rlt_data.errors import ModelError
from rlt_data.formats.definition import ConversationFormat
from rlt_data.formats.rendering import render_student_text
from rlt_data.formats.spans import encode_texts

_patterns: WeakKeyDictionary[Any, tuple[int, re.Pattern[str] | None]] = WeakKeyDictionary()


def require_end_token(format: ConversationFormat, tokenizer: Any, end_token_ids: Collection[int] = ()) -> str:
    """Return the end token with which a rendered student text ends, so that labels made of it hold it.

    `end_token_ids` are those at which the model stops besides the tokenizer's own, as its generation
    configuration has them. Raises `ModelError` where the template ends a turn without one: a model
    trained on such texts would never stop.
    """
    text = render_student_text(format, tokenizer, "Q", "T", "S").text
    last = encode_texts(tokenizer, [text])[0].token_ids[-1]
    if last == tokenizer.eos_token_id or last in end_token_ids:
        return str(tokenizer.convert_ids_to_tokens(last))
    raise ModelError(
        f"the chat template ends the assistant's turn with {text[-30:]!r}, which is no end token",
        where=str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__),
        remedy="set eos_token in tokenizer_config.json, or eos_token_id in generation_config.json, to the "
        "token that ends a turn in the template, or let the template write one",
    )


def find_control_token(tokenizer: Any, text: str) -> str | None:
    """Find the first special token that `text` itself holds, such as `<|im_end|>`; None where none is."""
    size = len(tokenizer.added_tokens_decoder)
    known = _patterns.get(tokenizer)
    if known is None or known[0] != size:
        special = [str(t.content) for t in tokenizer.added_tokens_decoder.values() if t.special and t.content]
        longest_first = sorted(special, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest_first))) if special else None
        known = _patterns[tokenizer] = (size, pattern)
    found = known[1].search(text) if known[1] is not None else None
    return found[0] if found else None
