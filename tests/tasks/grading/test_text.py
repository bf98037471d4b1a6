"""The grader `text`: which marks and blanks of an answer count."""

from __future__ import annotations

import pytest

from rlt_data.tasks.grading.text import normalize_text


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("12", "1 2", False),
        ("12", r"1\,2", False),
        ("12345", "1 2 345", False),
        ("1234", "1, 234", False),
        ("10080", "10 080", True),
        ("10080", r"10\,080", True),
        ("10080", r"10,\!080", True),
        ("1234567", "1,234,567", True),
        ("x+1", "x + 1", True),
        ("2x", "2 x", True),
        ("(1,2)", "(1, 2)", True),
    ],
)
def test_blanks_between_digits_count_unless_they_group(one: str, other: str, equal: bool) -> None:
    assert (normalize_text(one) == normalize_text(other)) is equal
