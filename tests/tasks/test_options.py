"""The order of options: deterministic, a permutation, and uniform."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.tasks.options import LETTERS, order_options

OPTIONS = st.lists(st.text(max_size=8), max_size=len(LETTERS))


@given(st.text(max_size=8), st.integers(0, 100), OPTIONS)
def test_order_is_a_permutation_and_the_same_again(question_id, sample, options):
    order = order_options(question_id, sample, options)
    assert sorted(order) == list(range(len(options)))
    assert order == order_options(question_id, sample, list(options))


@given(st.text(max_size=8), st.integers(0, 100), st.lists(st.text(max_size=8), unique=True, max_size=8))
def test_order_does_not_depend_on_the_position_in_the_source(question_id, sample, options):
    shown = [options[i] for i in order_options(question_id, sample, options)]
    reverse = options[::-1]
    assert shown == [reverse[i] for i in order_options(question_id, sample, reverse)]


@pytest.mark.parametrize("count", [2, 4, 5, 10])
@pytest.mark.parametrize("right", [0, -1])
def test_the_right_letter_is_uniform_over_questions_and_over_samples(count, right):
    options = [f"option {i}" for i in range(count)]
    right %= count
    total = 4000
    by_question = Counter(order_options(f"q{i}", 0, options).index(right) for i in range(total))
    by_sample = Counter(order_options("q", i, options).index(right) for i in range(total))
    for found in (by_question, by_sample):
        expected = total / count
        chi_square = sum((found[i] - expected) ** 2 / expected for i in range(count))
        # The hashes are fixed, so this never varies; 40 is far beyond the 0.1% point for 9 degrees (27.9).
        assert chi_square < 40
        assert set(found) == set(range(count))


def test_every_order_of_four_options_occurs_about_equally():
    orders = Counter(order_options(f"q{i}", i % 3, ["a", "b", "c", "d"]) for i in range(4800))
    assert len(orders) == 24
    assert all(140 < number < 260 for number in orders.values())


def test_samples_of_a_question_differ():
    assert len({order_options("q", i, ["a", "b", "c", "d"]) for i in range(32)}) > 8


def test_more_options_than_letters_are_refused():
    with pytest.raises(ValueError, match="27 options"):
        order_options("q", 0, [str(i) for i in range(27)])
