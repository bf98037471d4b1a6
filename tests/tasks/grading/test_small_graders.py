"""The graders integer, choice and countdown: verdicts, and hostile answers."""

import pytest

from rlt_data.tasks.grading.base import Item
from rlt_data.tasks.grading.opening import open_graders

NUMBERS = {"numbers": [3, 5, 2, 5], "target": 21}
PLANETS = ("Mercury", "Venus", "Earth", "Mars")
RIGHT = {"integer": "42", "choice": "C", "countdown": "5 + 2*(5 + 3)"}
GRADERS = list(RIGHT)
HOSTILE = {
    "empty": "",
    "a null character": "\x00",
    "1 MB of one letter": "x" * 10**6,
    "1 MB of digits": "9" * 10**6,
    "1 MB in a box": r"\boxed{" + "9" * 10**6 + "}",
    "deep boxes": r"\boxed{" * 50_000 + "1" + "}" * 50_000,
    "boxes that never close": r"\boxed{" * 50_000,
    "deep brackets": r"\boxed{" + "(" * 50_000 + "1" + ")" * 50_000 + "}",
    "a tower of powers": r"\boxed{10**10**10}",
    "a tower of powers in LaTeX": r"\boxed{10^{10^{10}}}",
    "code": r"\boxed{__import__('os').system('touch pwned')}",
    "code in a tag": "<answer>__import__('os').system('touch pwned')</answer>",
    "a formula of a spreadsheet": r"\boxed{=cmd|'/c calc'!A1}",
    "Arabic digits": r"\boxed{٤٢}",
    "full-width digits": r"\boxed{４２}",
    "a mathematical letter": r"\boxed{𝐂}",
    "a Cyrillic letter": r"\boxed{С}",
    "not a number": r"\boxed{nan}",
    "infinity": r"\boxed{inf}",
    "minus infinity": r"\boxed{-Infinity}",
    "a colour": "\x1b[31m\\boxed{\x1b[1m42\x1b[0m}",
    "a title of the terminal": r"\boxed{" + "\x1b]0;42\x07}",
    "text written backwards": r"\boxed{" + "\u202e24\u202c}",
    "a zero-width space": r"\boxed{4" + "\u200b2}",
    "a lone surrogate": r"\boxed{" + "\ud800}",
    "a million lines": "\n" * 10**6,
    "a million cues": "the answer is " * 70_000,
    "spaces": r"\boxed{" + " " * 10**6 + "}",
}


def make_item(response, grader, *, answer="", completion=None, truncated=False):
    return Item(
        key="key",
        completion=completion if completion is not None else (response or "<think>It may be"),
        response=response,
        truncated=truncated,
        question="What is it?",
        answer=answer or RIGHT[grader],
        options=PLANETS if grader == "choice" else (),
        metadata=NUMBERS if grader == "countdown" else {},
    )


def grade(name, item, extraction="stated"):
    with open_graders([name]) as graders:
        (result,) = graders[name].grade([item], extraction)
    assert result.key == "key"
    assert (result.grader, result.extraction) == (name, extraction)
    return result


@pytest.mark.parametrize(
    ("name", "response", "verdict"),
    [
        ("integer", r"So it is \boxed{042}.", "correct"),
        ("integer", r"So it is \boxed{42^\circ}.", "correct"),
        ("integer", r"So it is \boxed{711}.", "wrong"),
        ("integer", r"So it is \boxed{42.5}.", "wrong"),
        ("integer", r"So it is \boxed{x}.", "wrong"),
        ("integer", "I do not know it, sorry.", "no_answer"),
        ("choice", r"\boxed{C}", "correct"),
        ("choice", r"\boxed{Earth}", "correct"),
        ("choice", "The answer is (C).", "correct"),
        ("choice", r"\boxed{B}", "wrong"),
        ("choice", r"\boxed{B, C}", "wrong"),
        ("choice", "It is Earth, which is option C in the list above; or Mars.", "no_answer"),
        ("countdown", r"\boxed{2*(3+5)+5}", "correct"),
        ("countdown", r"\boxed{2 \times (3+5)+5 = 21}", "correct"),
        ("countdown", r"\boxed{2*(3+5)+5 = 22}", "wrong"),
        ("countdown", r"\boxed{21}", "wrong"),
        ("countdown", "It cannot be done.", "no_answer"),
    ],
)
def test_verdicts(name, response, verdict):
    assert grade(name, make_item(response, name)).verdict == verdict


@pytest.mark.parametrize("name", GRADERS)
def test_the_true_answer_is_correct(name):
    response = rf"Therefore \boxed{{{RIGHT[name]}}}."
    for extraction in ("stated", "last"):
        assert grade(name, make_item(response, name), extraction).verdict == "correct"


@pytest.mark.parametrize("name", GRADERS)
def test_completions_without_an_answer_say_why(name):
    assert grade(name, make_item(None, name)).verdict == "unclosed_think"
    assert grade(name, make_item(None, name, truncated=True)).verdict == "truncated"
    assert grade(name, make_item("I cannot say, sorry.", name)).verdict == "no_answer"
    # An answer counts, also where the completion was truncated after it.
    answered = make_item(rf"It is \boxed{{{RIGHT[name]}}}. Also,", name, truncated=True)
    assert grade(name, answered).verdict == "correct"


@pytest.mark.parametrize("name", GRADERS)
def test_last_looks_into_the_thinking(name):
    item = make_item(None, name, completion=rf"<think>It must be \boxed{{{RIGHT[name]}}}. Wait")
    assert grade(name, item, "stated").verdict == "unclosed_think"
    assert grade(name, item, "last").verdict == "correct"


@pytest.mark.parametrize(
    ("name", "answer", "metadata"),
    [
        ("integer", "1/2", {}),
        ("choice", "E", {}),
        ("choice", "Earth", {}),
        ("countdown", "x", {"numbers": []}),
    ],
)
def test_a_question_that_cannot_be_graded_is_ungradable(name, answer, metadata):
    item = Item("key", r"\boxed{1}", r"\boxed{1}", False, "?", answer, PLANETS, metadata)
    result = grade(name, item)
    assert result.verdict == "ungradable"
    assert result.detail


def test_wrong_expressions_say_what_is_wrong():
    assert "exactly once" in grade("countdown", make_item(r"\boxed{21}", "countdown")).detail


@pytest.mark.parametrize("extraction", ["stated", "last"])
@pytest.mark.parametrize("name", GRADERS)
def test_hostile_answers_are_never_correct_and_run_nothing(name, extraction, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    items = [make_item(text, name) for text in HOSTILE.values()]
    with open_graders([name]) as graders:
        grades = graders[name].grade(items, extraction)
    found = dict(zip(HOSTILE, (result.verdict for result in grades), strict=True))
    # The number itself is under the colours; they do not belong to it.
    assert set(found.values()) <= {"wrong", "no_answer"}, found
    assert not list(tmp_path.iterdir())
