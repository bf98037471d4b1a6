"""Where a completion ends: stop texts that may span tokens, found in the text and cut there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class CompletionReader:
    """Turns sampled token ids into text, exactly, and finds stop texts in it.

    Special tokens and tags are kept as they are written; nothing is stripped or cleaned up.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._stop = tuple(text for text in stop if text)
        # Every token writes at least one byte, so a stop text lies within this many of the last tokens.
        self._tail = max((len(text.encode()) for text in self._stop), default=0) + 4
        self._may_end: dict[int, bool] = {}

    def decode(self, token_ids: Sequence[int], last_prompt_token: int) -> str:
        """Decode a completion as it reads after its prompt.

        Some tokenizers drop a space at the start of a text; decoding with the prompt's last token in front
        keeps it.
        """
        before = self._decode([last_prompt_token])
        text = self._decode([last_prompt_token, *token_ids])
        return text[len(before) :] if text.startswith(before) else self._decode(token_ids)

    def ends_here(self, token_ids: Sequence[int]) -> bool:
        """Tell whether the last token completes a stop text."""
        if not self._stop or not self._may_complete(token_ids[-1]):
            return False
        tail = self._decode(token_ids[-self._tail :])
        return any(text in tail for text in self._stop)

    def cut(self, token_ids: Sequence[int], last_prompt_token: int) -> tuple[str, int, bool]:
        """Read a whole completion: its text, how many tokens that text needs, and whether a stop ended it.

        The text goes up to and including the first stop text, if there is one.
        """
        text = self.decode(token_ids, last_prompt_token)
        ends = [text.index(stop) + len(stop) for stop in self._stop if stop in text]
        if not ends:
            return text, len(token_ids), False
        kept = text[: min(ends)]
        needed = len(token_ids)
        while needed > 1 and self.decode(token_ids[: needed - 1], last_prompt_token).startswith(kept):
            needed -= 1
        return kept, needed, True

    def _may_complete(self, token_id: int) -> bool:
        """Tell, from the token alone, whether it can be the last of a stop text; cheap and cached."""
        known = self._may_end.get(token_id)
        if known is None:
            written = self._decode([token_id])
            known = any(stop[-1] in written or not stop[-1].isascii() for stop in self._stop)
            self._may_end[token_id] = known
        return known

    def _decode(self, token_ids: Sequence[int]) -> str:
        return str(self._backend.decode(list(token_ids), skip_special_tokens=False))
