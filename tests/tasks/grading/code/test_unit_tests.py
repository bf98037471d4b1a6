"""Unit tests of code questions, and the program of a completion."""

import json

import pytest

from rlt_data.tasks.grading.code.unit_tests import (
    MAX_TESTS,
    UnitTest,
    UnitTests,
    agree,
    agree_on_value,
    find_program,
    read_tests,
)

PLAIN = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}


def test_tests_are_read_from_text_and_from_objects():
    expected = UnitTests((UnitTest("1 2\n", "3\n"), UnitTest("3 4\n", "7\n")))
    assert read_tests({"input_output": json.dumps(PLAIN)}) == expected
    assert read_tests({"input_output": PLAIN}) == expected
    lines = {"inputs": [["1", "2"]], "outputs": [["3"]]}
    assert read_tests({"input_output": lines}) == UnitTests((UnitTest("1\n2", "3"),))
    called = {"fn_name": "add", "inputs": [[1, 2]], "outputs": [[3]]}
    assert read_tests({"input_output": called}) == UnitTests((UnitTest("[1, 2]", [3]),), "add")


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"input_output": None},
        {"input_output": ""},
        {"input_output": "not JSON"},
        {"input_output": "[" * 100_000},
        {"input_output": "9" * (5 * 2**20)},
        {"input_output": {"inputs": [], "outputs": []}},
        {"input_output": {"inputs": ["1"], "outputs": []}},
        {"input_output": {"inputs": "1", "outputs": "1"}},
        {"input_output": {"inputs": [{}], "outputs": ["1"]}},
        {"input_output": {"fn_name": "os.system", "inputs": [["x"]], "outputs": [[0]]}},
        {"input_output": {"fn_name": "f", "inputs": ["x"], "outputs": [0]}},
    ],
)
def test_other_metadata_has_no_tests(metadata):
    assert read_tests(metadata) is None


def test_the_number_of_tests_is_bounded():
    many = {"inputs": ["1"] * 5_000, "outputs": ["1"] * 5_000}
    assert len(read_tests({"input_output": many}).tests) == MAX_TESTS


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nprint(1)\n```", "print(1)\n"),
        (
            "First\n```python\nprint(1)\n```\nbetter\n```py\nprint(2)\n```\nRun it:\n```bash\nls\n```",
            "print(2)\n",
        ),
        ("```\nprint(1)\n```", "print(1)\n"),
        ("```cpp\nint main() {}\n```", None),
        ("```python\nprint(1)\n", None),
        ("```python\nbroken\n```python\nprint(1)\n```", "print(1)\n"),
        ("print(1)", None),
        ("", None),
        ("```python\n\n```", None),
        ("```python x\n" * 100_000, None),
        ("```\n" * 100_001, None),
    ],
)
def test_the_last_program_is_found(text, program):
    assert find_program(text) == program


@pytest.mark.parametrize(
    ("expected", "output", "equal"),
    [
        ("3\n", "3", True),
        ("1 2\n3\n", "1 2 \n3\n\n", True),
        ("3", "4", False),
        ("3", "", False),
        ("3", "33", False),
        ("YES", "yes", False),
    ],
)
def test_outputs_agree_up_to_spaces(expected, output, equal):
    assert agree(UnitTest("", expected), output) is equal


@pytest.mark.parametrize(
    ("expected", "value", "equal"),
    [
        ([3], 3, True),
        (3, 3, True),
        (3, 3.0, True),
        ([[1, 2]], [1, 2], True),
        ([1, 2], [1, 2], True),
        ([True], True, True),
        ([1], True, False),
        ([None], None, True),
        ({"a": [1]}, {"a": [1]}, True),
        ({"a": [1]}, {"a": [2]}, False),
        ([3], "3", False),
    ],
)
def test_values_agree(expected, value, equal):
    assert agree_on_value(UnitTest("", expected), value) is equal
