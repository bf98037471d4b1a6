from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.tasks.extraction import ExtractedAnswer, extract, extract_trace_answer

# Text, and what `stated` and `last` find in it: answer and origin.
CASES = [
    # boxes
    (r"So $\boxed{4}$.", ("4", "boxed"), ("4", "boxed")),
    (r"First \boxed{3}, then I see that it is \boxed{5}.", ("5", "boxed"), ("5", "boxed")),
    (r"\boxed{1}, \boxed{2}", ("1, 2", "boxed"), ("1, 2", "boxed")),
    (r"$x = \boxed{1}$ or $x = \boxed{2}$", ("1, 2", "boxed"), ("1, 2", "boxed")),
    (r"\boxed{1}\text{ and }\boxed{2}", ("1, 2", "boxed"), ("1, 2", "boxed")),
    (r"$\boxed{840}$, so $\boxed{840}$ in all.", ("840", "boxed"), ("840", "boxed")),
    (r"$\boxed{840}$ and \boxed{840}", ("840", "boxed"), ("840", "boxed")),
    ("$$\\boxed{840}$$\n\n$$\\boxed{12}$$", ("12", "boxed"), ("12", "boxed")),
    (r"\boxed{1} is not it, and the other one is \boxed{2}", ("2", "boxed"), ("2", "boxed")),
    (r"\boxed{x = \boxed{5}}", ("5", "boxed"), ("5", "boxed")),
    (r"\boxed{\text{13}}", (r"\text{13}", "boxed"), (r"\text{13}", "boxed")),
    (r"\fbox{7}", ("7", "boxed"), ("7", "boxed")),
    (r"$\boxed 5$", ("5", "boxed"), ("5", "boxed")),
    (r"$\boxed5$", ("5", "boxed"), ("5", "boxed")),
    (r"It is \boxed{7}, no: \boxed{8", ("7", "boxed"), ("7", "boxed")),
    (r"\boxed{7} and \boxed{}", ("7", "boxed"), ("7", "boxed")),
    # the prompt's own words
    (r"Mark your solution with \boxed and stop. I get \boxed{9}", ("9", "boxed"), ("9", "boxed")),
    (r"I \boxed{9}. Mark your solution with \boxed ", ("9", "boxed"), ("9", "boxed")),
    (r"I get 9. Mark your solution with \boxed and stop now, please.", None, ("9", "number")),
    (r"I get \boxed{9}, in \boxed{...} or \boxed{\text{answer}} or \boxed{}", ("9", "boxed"), ("9", "boxed")),
    (r"It must stand in \boxed{answer}, you say, and that is all there is.", None, None),
    # hashes, statements, short lines
    ("She has 18.\n#### 18", ("18", "hashes"), ("18", "hashes")),
    ("Long reasoning.\nThe answer is: $12$.", ("12", "stated"), ("12", "stated")),
    ("2 * 234 = 468\n\n✅ Final Answer: **73**", ("73", "stated"), ("73", "stated")),
    ("128", ("128", "plain"), ("128", "plain")),
    (r"  \(x^2\)  ", ("x^2", "plain"), ("x^2", "plain")),
    (r"Let \( a, b, c", None, None),
    ("Let $a, b, c", None, None),
    # what only `last` reads
    ("The answer is 12.\n\nI think that is it, all 3 checks pass.", None, ("12", "stated")),
    ("The answer is 5. No, the answer is \\(x + 1\\) here.\n\nAll 3 pass.", None, ("x + 1", "stated")),
    ("The answer is 28 different pizzas.\nI think that is it.", None, ("28 different pizzas", "stated")),
    ("**Final answer:** 12 or so, I think that is all of it.", None, ("12", "stated")),
    ("**The answer is:** **73** of 234.\n\nThat is 3 more.", None, ("73", "stated")),
    ("The answer is correct.\nThat makes 18 in all.", None, ("18", "number")),
    ("She makes 9 * 2 = $1,018 every day, I think.", None, ("1018", "number")),
    ("It is -3.5, I think so.", None, ("-3.5", "number")),
    ("There is no number in this sentence.", None, None),
    ("", None, None),
    ("   \n ", None, None),
]


@pytest.mark.parametrize(("text", "stated", "last"), CASES, ids=[case[0][:40] for case in CASES])
def test_the_answer_and_how_it_was_found(
    text: str, stated: tuple[str, str] | None, last: tuple[str, str] | None
) -> None:
    found = [extract(text, text, extraction) for extraction in ("stated", "last")]
    assert [(answer.text, answer.found) if answer.text else None for answer in found] == [stated, last]


def test_stated_looks_at_the_response_and_last_at_everything() -> None:
    completion = r"<think>It is \boxed{5}.</think>I cannot say what it is."
    assert extract("I cannot say what it is.", completion, "stated") == ExtractedAnswer()
    assert extract(None, completion, "stated") == ExtractedAnswer()
    assert extract(None, completion, "last") == ExtractedAnswer("5", "boxed")


def test_a_completion_of_a_megabyte_is_read_from_its_end() -> None:
    text = r"\boxed{1}" + "x " * 600_000
    assert extract(text, text, "last") == ExtractedAnswer()
    text = "x " * 600_000 + r"\boxed{1}"
    assert extract(text, text, "last") == ExtractedAnswer("1", "boxed")


@pytest.mark.parametrize(
    "unit",
    [
        r"\boxed{",
        "{",
        "}",
        r"\boxed{1}, ",
        "#### \n",
        "answer is ",
        "answer: 1 ",
        "1,",
        "1",
        "$",
        r"\(",
        "**",
        " ",
    ],
)
def test_a_million_characters_of_anything_cost_linear_time(unit: str) -> None:
    """With a search from each of them this would take hours."""
    text = unit * (1_000_000 // len(unit))
    for extraction in ("stated", "last"):
        answer = extract(text, text, extraction)
        assert answer.text is None or answer.text.strip()


@given(st.text(max_size=300))
def test_no_text_breaks_the_extraction(text: str) -> None:
    for extraction in ("stated", "last"):
        answer = extract(text, text, extraction)
        assert (answer.text is None) == (answer.found is None)


@given(st.text(alphabet="ab1 \\boxed{}$,#.\nandanswer is:", max_size=200))
def test_last_finds_whatever_stated_finds(text: str) -> None:
    stated = extract(text, text, "stated")
    assert stated.text is None or extract(text, text, "last") == stated


@pytest.mark.parametrize(
    ("solution", "think", "completion", "answer"),
    [
        (r"So \boxed{4}.", r"first \boxed{5}", "", "4"),
        (None, "Add them.\n\nThe answer is 7.", "", "7"),
        (None, "She makes 9 * 2 = $18 every day, which is 1,234 in all.", "", "1234"),
        (None, None, r"so \boxed{3}", "3"),
        (None, "There is no number in this sentence.", "", None),
        (None, None, None, None),
    ],
)
def test_the_answer_of_a_trace(
    solution: str | None, think: str | None, completion: str | None, answer: str | None
) -> None:
    assert extract_trace_answer(solution, think, completion) == answer
