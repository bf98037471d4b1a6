"""Where a completion ends: find stop texts, which may span tokens, and truncate the completion there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class CompletionReader:
    """Decodes sampled token ids exactly and finds stop texts in them.

    Special tokens and tags are kept; nothing is stripped or cleaned up.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._stop = tuple(text for text in stop if text)
        # Every token decodes to at least one byte, so a new stop text lies within this many last tokens.
        self._tail = max((len(text.encode()) for text in self._stop), default=0) + 4
        self._may_end: dict[int, bool] = {}

    def decode(self, token_ids: Sequence[int], last_prompt_token: int) -> str:
        """Decode a completion as the continuation of its prompt.

        Some tokenizers drop a space at the start of a text; decoding with the prompt's last token in front
        keeps it.
        """
        before = self._decode([last_prompt_token])
        text = self._decode([last_prompt_token, *token_ids])
        return text[len(before) :] if text.startswith(before) else self._decode(token_ids)

    def ends_here(self, token_ids: Sequence[int]) -> bool:
        """Return whether the last token completes a stop text."""
        if not self._stop or not self._may_complete(token_ids[-1]):
            return False
        tail = self._decode(token_ids[-self._tail :])
        return any(text in tail for text in self._stop)

    def truncate(self, token_ids: Sequence[int], last_prompt_token: int) -> tuple[str, int, bool]:
        """Decode a completion up to and including its first stop text, if there is one.

        Returns the text, the number of tokens that it needs, and whether a stop text ended it.
        """
        text = self.decode(token_ids, last_prompt_token)
        ends = [text.index(stop) + len(stop) for stop in self._stop if stop in text]
        if not ends:
            return text, len(token_ids), False
        truncated = text[: min(ends)]
        needed = len(token_ids)
        while needed > 1 and self.decode(token_ids[: needed - 1], last_prompt_token).startswith(truncated):
            needed -= 1
        return truncated, needed, True

    def _may_complete(self, token_id: int) -> bool:
        """Return whether a token, considered alone, can end a stop text; cheap and cached."""
        if token_id not in self._may_end:
            text = self._decode([token_id])
            # The bytes of a character beyond ASCII may be spread over tokens.
            self._may_end[token_id] = any(stop[-1] in text or not stop[-1].isascii() for stop in self._stop)
        return self._may_end[token_id]

    def _decode(self, token_ids: Sequence[int]) -> str:
        return str(self._backend.decode(list(token_ids), skip_special_tokens=False))
