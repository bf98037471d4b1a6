"""Whether thinking survives where others render the messages of an example through the chat template alone.

Training does not: contents are inserted after the template is applied, so the training text holds all of the
thinking. A trainer or a server that renders `messages` is another matter, and a template may look for tags
in the text of each row.
"""

from __future__ import annotations

import re
from typing import Any

from rlt_data.formats import ConversationFormat, keeps_thinking

_TAG = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{2,20}\]")
_LONGEST = 64


class MessageCheck:
    """Counts examples whose thinking the template would drop or change because of the tags in their texts.

    Only tags that the template's own source names are looked for, and each combination is rendered once,
    with words in place of the texts.
    """

    def __init__(self, format: ConversationFormat, tokenizer: Any) -> None:
        self.lost: list[str] = []
        self._format = format
        self._tokenizer = tokenizer
        choose = getattr(tokenizer, "get_chat_template", None)
        source = str(choose() if choose is not None else tokenizer.chat_template)
        self._tags = frozenset(_TAG.findall(source))
        self._kept: dict[tuple[tuple[str, ...], ...], bool] = {}
        # Where it is always lost, the check of the template says so.
        self._is_open = bool(self._tags) and self._keeps(((), (), ()))

    def add(self, key: str, question: str, think: str, solution: str) -> None:
        """Check one example; `key` names it in `lost`."""
        if not self._is_open:
            return
        if not self._keeps(tuple(self._find_tags(text) for text in (question, think, solution))):
            self.lost.append(key)

    def describe(self, name: str, total: int) -> str | None:
        """Return a sentence about the examples found, for the run's notes; None without any."""
        if not self.lost:
            return None
        return (
            f"the chat template of {name} changes or drops the thinking of {len(self.lost):,} of {total:,} "
            f"examples, the first is {self.lost[0]}, because of tags such as </think> in their texts. "
            "Training texts have all of it; a trainer that renders `messages` through this template would not"
        )

    def _find_tags(self, text: str) -> tuple[str, ...]:
        found = [tag for tag in _TAG.findall(text) if tag in self._tags]
        return tuple(found if len(found) <= _LONGEST else found[: _LONGEST // 2] + found[-_LONGEST // 2 :])

    def _keeps(self, tags: tuple[tuple[str, ...], ...]) -> bool:
        if tags not in self._kept:
            texts = [
                "".join(f"Rlt5entinel{name}{i}{tag}" for i, tag in enumerate((*found, "")))
                for name, found in zip(("Question", "Thinking", "Given"), tags, strict=True)
            ]
            self._kept[tags] = keeps_thinking(self._format, self._tokenizer, *texts)
        return self._kept[tags]
