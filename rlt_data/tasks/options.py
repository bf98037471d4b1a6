"""Options of multiple choice: their letters, and an order that depends on question and sample alone."""

from __future__ import annotations

import string
from collections.abc import Sequence

from rlt_data.hashing import hash_content

LETTERS = string.ascii_uppercase
"""The letters of options, in order; a question has at most this many."""


def order_options(question_id: str, sample_index: int, options: Sequence[str]) -> tuple[int, ...]:
    """Return the order in which options are shown: the index into `options` of what stands at A, B, ...

    Options are sorted by their hashes with question and sample. So the position of the right one is as good
    as random over questions and over samples of one question, whatever its position in the source, and is
    the same in every run and every process. Raises `ValueError` for more options than letters.
    """
    if len(options) > len(LETTERS):
        raise ValueError(f"a question has {len(options)} options, and there are {len(LETTERS)} letters")

    def key(index: int) -> tuple[str, int]:
        return hash_content("options", question_id, sample_index, options[index]), index

    return tuple(sorted(range(len(options)), key=key))
