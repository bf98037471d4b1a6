"""Packing: many texts in one row of tokens, a prefix that several share computed once.

A pack is one sequence of tokens cut into segments. A segment is either a prefix, which sees itself, or
the rest of a text, which sees its prefix and itself. A prefix whose texts do not fit one pack leaves its
keys and values behind for the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

# A shared beginning shorter than this is not worth a segment of its own.
MIN_SHARED_TOKENS = 8


@dataclass(frozen=True)
class PackItem:
    """One text to run: its token ids, and the first token whose log-probability is asked for."""

    index: int
    token_ids: Sequence[int]
    first_scored: int


@dataclass(frozen=True)
class Segment:
    """Tokens [start, start + length) of a pack, at positions from `offset` on in their text.

    `index` is the text they belong to, None for a prefix. `prefix` names the prefix they follow.
    """

    start: int
    length: int
    offset: int
    index: int | None
    prefix: int | None


@dataclass
class Pack:
    """One forward pass. `stored` prefixes come from an earlier pack; `kept` ones are needed by a later."""

    token_ids: list[int] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    own: dict[int, Segment] = field(default_factory=dict)
    stored: set[int] = field(default_factory=set)
    kept: set[int] = field(default_factory=set)

    def add(self, tokens: Sequence[int], offset: int, index: int | None, prefix: int | None) -> Segment:
        """Append one segment."""
        segment = Segment(len(self.token_ids), len(tokens), offset, index, prefix)
        self.token_ids.extend(tokens)
        self.segments.append(segment)
        return segment


def group_by_prefix(items: Sequence[PackItem]) -> list[tuple[int, list[PackItem]]]:
    """Gather neighbouring texts that begin alike: (shared length, texts) each.

    The shared part ends one token before the first scored token, so that the hidden state that predicts
    it lies in the text's own segment.
    """
    groups: list[tuple[int, list[PackItem]]] = []
    for item in items:
        if groups:
            shared, members = groups[-1]
            limit = item.first_scored - 1
            common = count_shared(members[0].token_ids, item.token_ids, min(shared, limit))
            # Texts of one question share all of their prompt; texts of two share the system prompt at most.
            if common >= MIN_SHARED_TOKENS and 2 * common >= shared:
                groups[-1] = (common, [*members, item])
                continue
        groups.append((item.first_scored - 1, [item]))
    return [(shared if len(members) > 1 else 0, members) for shared, members in groups]


def count_shared(a: Sequence[int], b: Sequence[int], limit: int) -> int:
    """Length of the common beginning of two token sequences, `limit` at most."""
    low = 0
    while low < limit and a[low] == b[low]:
        low += 1
    return low


def build_packs(items: Sequence[PackItem], limit: int, *, share_prefixes: bool = True) -> Iterator[Pack]:
    """Fill packs of about `limit` tokens; a single text longer than that makes a pack of its own."""
    pack = Pack()
    groups = group_by_prefix(items) if share_prefixes else [(0, [item]) for item in items]
    for number, (shared, members) in enumerate(groups):
        for place, item in enumerate(members):
            needed = len(item.token_ids) - shared
            if place == 0:
                needed += shared
            if pack.segments and len(pack.token_ids) + needed > limit:
                if place > 0:
                    pack.kept.add(number)
                yield pack
                pack = Pack()
                if place > 0:
                    pack.stored.add(number)
            if place == 0 and shared:
                pack.own[number] = pack.add(item.token_ids[:shared], 0, None, None)
            pack.add(item.token_ids[shared:], shared, item.index, number if shared else None)
    if pack.segments:
        yield pack
