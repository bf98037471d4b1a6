"""Packing loses no token, shares only what texts have in common, and keeps what later packs need."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlt_data.reward.forward.packing import Pack, PackItem, build_packs, count_shared

ids = st.lists(st.integers(0, 2), min_size=2, max_size=40)


@st.composite
def items(draw: st.DrawFn) -> list[PackItem]:
    prompts = st.sampled_from([[], [5] * 20, [5] * 20 + [6] * 18, [5] * 20 + [6] * 18 + [7] * 30])
    texts = draw(st.lists(st.tuples(prompts, ids), max_size=8))
    made = []
    for index, (prompt, rest) in enumerate(texts):
        tokens = prompt + rest
        made.append(PackItem(index, tokens, draw(st.integers(1, len(tokens) - 1))))
    return made


def spell(pack: Pack, prefixes: dict[int, list[int]]) -> dict[int, list[int]]:
    """The texts of a pack, put together again from segments and prefixes."""
    for number, segment in pack.own.items():
        prefixes[number] = pack.token_ids[segment.start : segment.start + segment.length]
    texts = {}
    for segment in pack.segments:
        before = [token for prefix in segment.prefixes for token in prefixes[prefix]]
        assert segment.offset == len(before)
        # What a segment follows is in this pack, before it, or stored from an earlier one.
        for prefix in segment.prefixes:
            assert prefix in pack.stored or pack.own[prefix].start < segment.start
        if segment.index is not None:
            texts[segment.index] = before + pack.token_ids[segment.start : segment.start + segment.length]
    return texts


@given(items(), st.integers(1, 120), st.booleans())
def test_every_text_is_stored_once(made: list[PackItem], limit: int, share: bool) -> None:
    prefixes: dict[int, list[int]] = {}
    available: set[int] = set()
    found: dict[int, list[int]] = {}
    for pack in build_packs(made, limit, share_prefixes=share):
        # A prefix of an earlier pack is there only where that pack kept it.
        assert pack.stored <= available
        available = pack.kept
        assert pack.kept <= pack.own.keys() | pack.stored
        texts = spell(pack, prefixes)
        assert not found.keys() & texts.keys()
        found |= texts
        if len(texts) > 1:
            assert len(pack.token_ids) <= limit
    assert found == {item.index: list(item.token_ids) for item in made}


@given(items(), st.integers(1, 120))
def test_what_predicts_a_scored_token_is_in_the_text_s_own_segment(made: list[PackItem], limit: int) -> None:
    for pack in build_packs(made, limit):
        for segment in pack.segments:
            if segment.index is not None:
                assert segment.offset <= made[segment.index].first_scored - 1


def test_system_prompt_and_questions_are_computed_once() -> None:
    system = list(range(100))
    made = [
        PackItem(index, [*system, *([500 + index // 4] * 40), 200 + index, 7, 7], 141) for index in range(8)
    ]
    packs = list(build_packs(made, 4096))
    assert len(packs) == 1
    assert len(packs[0].token_ids) == 100 + 2 * 40 + 8 * 3
    # Cut into many packs, nothing is computed twice either.
    assert sum(len(pack.token_ids) for pack in build_packs(made, 50)) == 100 + 2 * 40 + 8 * 3


def test_one_explanation_per_question_shares_the_system_prompt() -> None:
    made = [PackItem(i, [*range(100), *range(1000 * i, 1000 * i + 30)], 101) for i in range(1, 5)]
    assert sum(len(pack.token_ids) for pack in build_packs(made, 4096)) == 100 + 4 * 30


def test_count_shared() -> None:
    assert count_shared([1, 2, 3], [1, 2, 4], 3) == 2
    assert count_shared([1, 2, 3], [1, 2, 3], 1) == 1
