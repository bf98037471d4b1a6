"""The grader reasoning_gym: its datasets' own scorers, which evaluate nothing here."""

import io
import json
from pathlib import Path

import pytest

from rlt_data.sources.layouts import Row
from rlt_data.sources.layouts.public.reasoning_gym import ReasoningGym
from rlt_data.sources.procedural.reasoning_gym_worker import make_problems
from rlt_data.tasks.grading.base import GraderSettings, Item
from rlt_data.tasks.grading.opening import open_graders
from rlt_data.tasks.grading.pool import WorkerPool
from rlt_data.tasks.grading.reasoning_gym.grader import find_answer

pytest.importorskip("reasoning_gym")

EVALUATING = ["string_insertion", "spiral_matrix", "binary_matrix", "n_queens", "number_sorting"]
"""Datasets whose scorers call `eval` with the answer, or with the problem's."""
PARSING = [
    "simple_integration",
    "intermediate_integration",
    "polynomial_multiplication",
    "puzzle24",
    "countdown",
]
"""Datasets whose scorers call sympy's `parse_expr` with the answer."""
OTHERS = [
    "chain_sum",
    "arc_agi",
    "rearc",
    "graph_color",
    "bitwise_arithmetic",
    "decimal_arithmetic",
    "word_sorting",
]
CODE = [
    "__import__('os').system('touch pwned')",
    "[c for c in (open('pwned', 'w').write('x') and 'ab')]",
    "exec(chr(111)+chr(112)+chr(101)+chr(110)+chr(40)+chr(39)+chr(112)+chr(39)+chr(44)+chr(39)+chr(119)+chr(39)+chr(41))",
    "eval(chr(49))",
    "open('pwned','w')",
    "().__class__.__base__.__subclasses__()",
    "lambdify(x, x)(1)",
    'sympify(\'__import__("os").system("touch pwned")\')',
    "S('1')",
    "x.__class__",
    "preview(x)",
]
HOSTILE = {
    "a tower": "10**10**10",
    "a long tower": "9**9**9**9",
    "factorials": "99999!!!!",
    "deep": "(" * 4_000 + "1" + ")" * 4_000,
    "deep lists": "[" * 4_000 + "]" * 4_000,
    "many digits": "9" * 9_999,
    "longer than any answer": "1" * 10_001,
    "a huge decimal": "1e999999999",
    "not a number": "nan",
    "infinity": "inf",
    "Arabic digits": "٤٢",
    "escapes": "\x1b[31m1\x1b[0m",
    "a null character": "1\x001",
    "a lone surrogate": "\ud800",
}


def make_items(dataset, size=4, seed=11, options=None):
    """Return question, answer and metadata of problems, as the lake has them."""
    output = io.StringIO()
    make_problems({"name": dataset, "size": size, "seed": seed, "options": options or {}}, output)
    items = []
    for line in output.getvalue().splitlines():
        example = ReasoningGym().read(Row(json.loads(line)["row"]))
        metadata = json.loads(json.dumps(example.metadata))
        items.append((example.question, example.answer, metadata))
    return items


def answer_with(item, text):
    question, answer, metadata = item
    response = f"<answer>{text}</answer>"
    return Item("key", response, response, False, question, answer, (), metadata)


def run(items, extraction="stated"):
    with open_graders(["reasoning_gym"], GraderSettings(processes=2)) as graders:
        return graders["reasoning_gym"].grade(items, extraction)


@pytest.fixture(scope="module")
def problems():
    """Some problems of every dataset whose scorer needs care, as the lake has them."""
    return {name: make_items(name) for name in EVALUATING + PARSING + OTHERS}


def test_true_answers_are_correct_and_others_are_not(problems):
    items = [item for found in problems.values() for item in found]
    right = run([answer_with(item, item[1]) for item in items])
    assert {grade.verdict for grade in right} == {"correct"}
    wrong = run([answer_with(item, "banana") for item in items])
    assert {grade.verdict for grade in wrong} <= {"wrong", "failed"}


def test_partial_credit_is_not_correct():
    (item,) = make_items("string_insertion", size=1)
    # The answer as a list of characters earns a tenth; that it is read at all shows that lists are literals.
    (grade,) = run([answer_with(item, str(list(item[1])))])
    assert (grade.verdict, grade.detail) == ("wrong", "the scorer gave 0.1")


@pytest.mark.slow
def test_limits_of_a_configuration_are_those_of_the_problem():
    options = {"min_value": 4, "max_value": 10}
    for item in make_items("puzzle24", size=3, options=options):
        assert run([answer_with(item, item[1])])[0].verdict == "correct"
    places = {"min_num_decimal_places": 9, "max_num_decimal_places": 9, "precision": 14}
    (item,) = make_items("decimal_arithmetic", size=1, options=places)
    near = str(float(item[1]) + 1e-7)
    assert [run([answer_with(item, text)])[0].verdict for text in (item[1], near)] == ["correct", "wrong"]


def test_code_in_answers_is_not_executed(problems, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    items = [answer_with(problems[name][0], code) for name in EVALUATING + PARSING for code in CODE]
    grades = run(items)
    assert {grade.verdict for grade in grades} <= {"wrong", "failed"}
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_hostile_answers_end_as_verdicts(problems):
    items = [answer_with(problems[name][0], text) for name in problems for text in HOSTILE.values()]
    settings = GraderSettings(seconds=1, processes=2)
    with open_graders(["reasoning_gym"], settings) as graders:
        grades = graders["reasoning_gym"].grade(items, "stated")
    assert len(grades) == len(items)
    assert {grade.verdict for grade in grades} <= {"wrong", "failed", "timed_out", "no_answer"}


def test_an_answer_of_1_mb_is_no_answer(problems):
    (grade,) = run([answer_with(problems["chain_sum"][0], "9" * 10**6)])
    assert grade.verdict == "no_answer"


def test_hostile_metadata_is_not_executed(tmp_path, monkeypatch):
    # A file of questions may be anybody's: `bitwise_arithmetic` evaluates the problem in its metadata.
    monkeypatch.chdir(tmp_path)
    metadata = {"source_dataset": "bitwise_arithmetic", "problem": CODE[0], "difficulty": {}}
    (grade,) = run([answer_with(("?", "0x1", metadata), "0x1")])
    assert grade.verdict == "wrong"
    metadata |= {"problem": "1 << 10**12"}
    (grade,) = run([answer_with(("?", "0x1", metadata), "0x1")])
    assert grade.verdict in ("wrong", "failed")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("metadata", [{}, {"source_dataset": None}, {"source_dataset": ["x"]}])
def test_a_question_of_no_dataset_is_ungradable(metadata):
    (grade,) = run([answer_with(("?", "1", metadata), "1")])
    assert grade.verdict == "ungradable"


def test_an_unknown_dataset_has_no_verdict():
    (grade,) = run([answer_with(("?", "1", {"source_dataset": "os"}), "1")])
    assert (grade.verdict, grade.detail) == ("failed", "the comparison raised KeyError")


def test_the_child_has_no_network_and_writes_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with WorkerPool("tasks.grading.child_rights:describe", seconds=20, processes=1) as pool:
        (reply,) = pool.run([[str(tmp_path / "file"), str(Path("/proc/self/ns/net").readlink())]])
    assert reply.failure is None
    assert reply.value["written"] is False
    # Where the system lets a process leave the network, no interface but an idle loopback is left.
    if reply.value["left"]:
        assert reply.value["interfaces"] <= ["lo"]
        assert reply.value["connected"] is False


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<answer> 4 </answer>", ("4", "answer_tag")),
        ("<answer>3</answer> no, <answer>4</answer>", ("4", "answer_tag")),
        (r"It is \boxed{\text{a b}}.", ("a b", "boxed")),
        ("The answer is 4.", ("4", "stated")),
        ("**Final Answer:**\n1 2\n3 4\n\nThat is all.", ("1 2\n3 4", "stated")),
        ("I do not know.", None),
        ("<answer>" * 50_000, None),
    ],
)
def test_answers_are_found(text, found):
    assert find_answer(text) == found


def test_a_short_response_is_an_answer_and_a_truncated_one_is_not():
    item = make_items("chain_sum", size=1)[0]
    question, answer, metadata = item
    whole = Item("key", answer, answer, False, question, answer, (), metadata)
    truncated = Item("key", answer, answer, True, question, answer, (), metadata)
    unclosed = Item("key", "<think>Well", None, False, question, answer, (), metadata)
    grades = run([whole, truncated, unclosed])
    assert [grade.verdict for grade in grades] == ["correct", "truncated", "unclosed_think"]
    assert grades[0].extracted_from == "plain"
