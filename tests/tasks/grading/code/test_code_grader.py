"""The grader code: nothing runs unless it is allowed, and then only in the sandbox."""

import json

import pytest

from rlt_data.errors import UsageError
from rlt_data.tasks.grading.base import GraderSettings, Item
from rlt_data.tasks.grading.opening import open_graders

TESTS = {"input_output": json.dumps({"inputs": ["1 2\n", "5 6\n"], "outputs": ["3\n", "11\n"]})}
FUNCTION = {
    "input_output": json.dumps({"fn_name": "add", "inputs": [[1, 2], [5, 6]], "outputs": [[3], [11]]})
}
RIGHT = "print(sum(map(int, input().split())))"


def make_item(program, metadata=TESTS, *, truncated=False, response=None):
    response = f"I add them.\n\n```python\n{program}\n```\n" if response is None else response
    return Item("key", response, response, truncated, "Add two numbers.", None, (), metadata)


@pytest.fixture(scope="module")
def grader():
    """The grader, allowed to run code, where bubblewrap works."""
    try:
        with open_graders(["code"], GraderSettings(run_code=True)) as graders:
            yield graders["code"]
    except UsageError as error:
        pytest.skip(f"no program can be isolated here: {error.what}")


def test_without_permission_code_is_ungradable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_graders(["code"]) as graders:
        (grade,) = graders["code"].grade([make_item("open('pwned', 'w')")], "stated")
    assert grade.verdict == "ungradable"
    assert "run_code" in grade.detail
    assert not list(tmp_path.iterdir())


def test_permission_without_a_sandbox_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="bubblewrap"), open_graders(["code"], GraderSettings(run_code=True)):
        pass


def test_verdicts(grader):
    items = [
        make_item(RIGHT),
        make_item("print(3)"),
        make_item("print(input())"),
        make_item("raise SystemExit(1)"),
        make_item("def add(a, b): return a + b", FUNCTION),
        make_item("class Solution:\n    def add(self, a, b): return a + b", FUNCTION),
        make_item("def add(a, b): return 3", FUNCTION),
        make_item(RIGHT, {}),
        make_item("", response="I cannot."),
        make_item("", response="```python\nprint(", truncated=True),
    ]
    grades = grader.grade(items, "stated")
    verdicts = [
        "correct",
        "wrong",
        "wrong",
        "wrong",
        "correct",
        "correct",
        "wrong",
        "ungradable",
        "no_answer",
        "truncated",
    ]
    assert [grade.verdict for grade in grades] == verdicts
    assert grades[1].detail == "test 2 of 2: the output is not the expected one"


def test_a_program_that_never_ends_is_timed_out(grader, monkeypatch):
    monkeypatch.setattr(grader._sandbox, "_seconds", 1.0)
    (grade,) = grader.grade([make_item("while True: pass")], "stated")
    assert (grade.verdict, grade.detail) == ("timed_out", "test 1 of 2 took too long")


def test_what_is_expected_never_enters_the_sandbox(grader):
    # The program looks for its expected output in everything that it can read.
    program = """
import os, sys
seen = open("/launcher.py").read() + open("/program.py").read() + " ".join(sys.argv) + str(dict(os.environ))
for name in os.listdir("/proc"):
    if name.isdigit():
        seen += open(f"/proc/{name}/cmdline").read()
print("3041" in seen)
"""
    hidden = {"input_output": {"inputs": ["x"], "outputs": [str(3040 + 1)]}}
    (grade,) = grader.grade([make_item(program.replace('"3041"', "str(3040 + 1)"), hidden)], "stated")
    assert grade.verdict == "wrong"
