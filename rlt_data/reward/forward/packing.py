"""Packing: many texts in one sequence of tokens, with each shared prefix computed once.

A pack is one sequence of tokens, divided into segments. A segment is either a prefix (a system prompt, a
question) or the rest of a text; it attends to the prefixes that it follows and to itself. If the texts of a
prefix do not fit in one pack, the keys and values of the prefix are kept for the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

# A shared prefix shorter than this is not worth a segment of its own.
MIN_SHARED_TOKENS = 16


@dataclass(frozen=True)
class PackItem:
    """One text to run: its token ids and the index of its first scored token."""

    index: int
    token_ids: Sequence[int]
    first_scored: int


@dataclass(frozen=True)
class Prefix:
    """Tokens that several texts share from position `start` on, after the prefixes `before`."""

    number: int
    before: tuple[int, ...]
    start: int
    token_ids: Sequence[int]


@dataclass(frozen=True)
class PlannedText:
    """A text and its prefixes, outermost first; its own tokens begin at position `start`."""

    item: PackItem
    prefixes: tuple[Prefix, ...]
    start: int


@dataclass(frozen=True)
class Segment:
    """Tokens [start, start + length) of a pack; the first has position `offset` in its text.

    `index` is the text that they belong to, None for a prefix. `prefixes` are those that they follow.
    """

    start: int
    length: int
    offset: int
    index: int | None
    prefixes: tuple[int, ...]


@dataclass
class Pack:
    """One forward pass. `stored` prefixes come from an earlier pack; `kept` ones are needed by the next."""

    token_ids: list[int] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    own: dict[int, Segment] = field(default_factory=dict)
    stored: set[int] = field(default_factory=set)
    kept: set[int] = field(default_factory=set)

    def add(
        self, tokens: Sequence[int], offset: int, index: int | None, prefixes: tuple[int, ...]
    ) -> Segment:
        """Append one segment."""
        segment = Segment(len(self.token_ids), len(tokens), offset, index, prefixes)
        self.token_ids.extend(tokens)
        self.segments.append(segment)
        return segment


def build_packs(items: Sequence[PackItem], limit: int, *, share_prefixes: bool = True) -> Iterator[Pack]:
    """Fill packs of about `limit` tokens; a single text longer than that makes a pack of its own."""
    pack = Pack()
    done: set[int] = set()
    for text in plan_prefixes(items) if share_prefixes else (PlannedText(item, (), 0) for item in items):
        missing = [prefix for prefix in text.prefixes if prefix.number not in done]
        own = text.item.token_ids[text.start :]
        needed = len(own) + sum(len(prefix.token_ids) for prefix in missing)
        if pack.segments and len(pack.token_ids) + needed > limit:
            # Texts of a prefix are adjacent: a prefix that the next text does not need, no later text needs.
            pack.kept = {prefix.number for prefix in text.prefixes if prefix.number in done}
            yield pack
            pack = Pack(stored=set(pack.kept))
        for prefix in missing:
            done.add(prefix.number)
            pack.own[prefix.number] = pack.add(prefix.token_ids, prefix.start, None, prefix.before)
        numbers = tuple(prefix.number for prefix in text.prefixes)
        pack.add(own, text.start, text.item.index, numbers)
    if pack.segments:
        yield pack


def plan_prefixes(items: Sequence[PackItem]) -> Iterator[PlannedText]:
    """Find the prefixes that adjacent texts share, level by level: system prompt, then question.

    A prefix ends one token before the first scored token of its texts, so that the hidden state that
    predicts that token is in each text's own segment.
    """
    shared = [
        count_shared(a.token_ids, b.token_ids, min(a.first_scored, b.first_scored) - 1)
        for a, b in pairwise(items)
    ]
    count = 0
    # Intervals of texts that share their first `start` tokens; the next one in order is on top.
    waiting: list[tuple[int, int, int, tuple[Prefix, ...]]] = [(0, len(items), 0, ())] if items else []
    while waiting:
        first, last, start, prefixes = waiting.pop()
        if last - first == 1:
            yield PlannedText(items[first], prefixes, start)
            continue
        least = min(shared[first : last - 1])
        if least - start >= MIN_SHARED_TOKENS:
            before = tuple(prefix.number for prefix in prefixes)
            prefix = Prefix(count, before, start, items[first].token_ids[start:least])
            count += 1
            start, prefixes = least, (*prefixes, prefix)
        edges = [i + 1 for i in range(first, last - 1) if shared[i] - start < MIN_SHARED_TOKENS]
        parts = zip([first, *edges], [*edges, last], strict=True)
        waiting.extend((a, b, start, prefixes) for a, b in reversed(list(parts)))


def count_shared(a: Sequence[int], b: Sequence[int], limit: int) -> int:
    """Length of the common prefix of two token sequences, at most `limit`."""
    # Bisection compares whole slices, which is faster than a loop over the tokens of long prompts.
    low = 0
    while low < limit:
        middle = (low + limit + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            limit = middle - 1
    return low
