"""The name that a user probably meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlt_data.suggestions import find_nearest, suggest_name

ROOT = Path(__file__).parents[1]
NAMES = ["questions", "traces", "token_scores"]


@pytest.mark.parametrize(
    ("word", "nearest"),
    [("questons", "questions"), ("TRACES", "traces"), ("token-score", "token_scores"), ("zzz", None)],
)
def test_the_nearest_name_is_found_regardless_of_case(word: str, nearest: str | None):
    assert find_nearest(word, NAMES) == nearest


def test_the_remedy_is_the_nearest_name_else_every_name():
    assert suggest_name("trase", NAMES) == "did you mean 'traces'?"
    assert suggest_name("zzz", NAMES) == "use one of: questions, token_scores, traces"
    assert suggest_name("zzz", NAMES, otherwise="see the manual") == "see the manual"
    assert suggest_name("zzz", []) == "remove it"


def test_nothing_else_compares_names():
    users = [
        path.relative_to(ROOT).as_posix()
        for folder in ("rlt_data", "cli")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"\bdifflib\b", path.read_text(encoding="utf-8"))
    ]
    assert users == ["rlt_data/suggestions.py"]
