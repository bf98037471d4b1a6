"""Generated problems: the same for the same seed, typed options, clear refusals."""

from __future__ import annotations

import dataclasses
import enum
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rlt_data.errors import InputError, UsageError
from rlt_data.sources.procedural import reasoning_gym
from rlt_data.sources.procedural.reasoning_gym import ReasoningGymPart, open_reasoning_gym
from rlt_data.sources.procedural.reasoning_gym_worker import make_problems, simplify_value
from rlt_data.sources.rows import SourceRow

pytest.importorskip("reasoning_gym")


def make(name: str, size: int = 4, seed: int = 0, **options: Any) -> list[dict[str, Any]]:
    part = open_reasoning_gym(f"reasoning-gym:{name}", size=size, seed=seed, options=options)
    return [row.values for row in part.read() if isinstance(row, SourceRow)]


@dataclasses.dataclass
class BrokenConfig:
    size: int = 1
    seed: int = 0


class BrokenProblems:
    """A generator that finds no problem at index 1."""

    def __init__(self, config: BrokenConfig) -> None:
        self.config = config

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == 1:
            raise ValueError("no such problem")
        return {"question": "q", "answer": "a", "metadata": {"index": index}}


@contextmanager
def registered_generator(name: str) -> Iterator[None]:
    from reasoning_gym.factory import DATASETS

    DATASETS[name] = (BrokenProblems, BrokenConfig)
    try:
        yield
    finally:
        del DATASETS[name]


def test_problems_come_numbered_with_answers_and_metadata() -> None:
    part = open_reasoning_gym(
        "reasoning-gym:countdown", size=5, seed=3, options={"min_numbers": "3", "max_numbers": 3}
    )
    rows = list(part.read())
    assert [row.number for row in rows] == list(range(5))
    assert part.count_rows() == 5
    for row in rows:
        assert isinstance(row, SourceRow)
        numbers = row.values["metadata"]["numbers"]
        assert len(numbers) == 3
        assert str(row.values["metadata"]["target"]) in row.values["question"]


# word_ladder iterates over sets of texts, list_functions draws from the global random state.
@pytest.mark.parametrize("name", ["word_ladder", "list_functions"])
def test_careless_generators_repeat_themselves_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    first = make(name)
    monkeypatch.setenv("PYTHONHASHSEED", "2")
    assert make(name) == first


def test_seed_size_and_options_decide_the_identity() -> None:
    part = open_reasoning_gym("reasoning-gym:chain_sum", size=4, seed=0, options={"max_terms": "6"})
    default = open_reasoning_gym("reasoning-gym:chain_sum", size=4, seed=0, options={})
    assert part.identify() == default.identify()  # 6 is the default
    other = open_reasoning_gym("reasoning-gym:chain_sum", size=4, seed=0, options={"max_terms": 5})
    assert len({part.identify(), other.identify()}) == 2
    seeded = dataclasses.replace(part, settings={**part.settings, "seed": 1})
    assert seeded.identify() != part.identify()


def test_lists_are_read_from_text() -> None:
    rows = make("countdown", size=6, operators="+,-", max_numbers="4")
    assert all(not set("*/") & set(row["answer"]) for row in rows)


def test_values_of_generators_become_plain_json() -> None:
    numpy = pytest.importorskip("numpy")

    class Color(enum.Enum):
        RED = "red"

    class Size(enum.StrEnum):
        SMALL = "small"

    value = {1: Color.RED, "b": [Size.SMALL, numpy.str_("t"), numpy.int64(3)], "c": {"y", "x"}, (1, 2): None}
    value |= {"d": numpy.arange(2), "e": numpy.float32(0.5)}
    plain = simplify_value(value)
    assert json.loads(json.dumps(plain)) == {
        "1": "red",
        "b": ["small", "t", 3],
        "c": ["x", "y"],
        "(1, 2)": None,
        "d": [0, 1],
        "e": 0.5,
    }


@pytest.mark.parametrize(
    ("name", "options", "message", "remedy"),
    [
        ("cuntdown", {}, "no generator named 'cuntdown'", "did you mean 'countdown'"),
        ("countdown", {"min_nmbers": 3}, "no option 'min_nmbers'", "did you mean 'min_numbers'"),
        ("countdown", {"min_numbers": "many"}, "'min_numbers' cannot be 'many'.*valid integer", None),
        ("countdown", {"min_numbers": 9}, "max_numbers must be", None),
    ],
)
def test_refusals_state_what_is_valid(
    name: str, options: dict[str, Any], message: str, remedy: str | None
) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        open_reasoning_gym(f"reasoning-gym:{name}", size=3, seed=0, options=options)
    assert (remedy or "") in (refused.value.remedy or "")


def test_a_problem_that_cannot_be_generated_is_one_bad_row() -> None:
    output = io.StringIO()
    request = {"name": "broken", "size": 3, "seed": 0, "options": {}}
    with registered_generator("broken"):
        make_problems(request, output)
    first, failed, last = map(json.loads, output.getvalue().splitlines())
    assert failed == {"failed": "ValueError: no such problem"}
    assert [first["row"]["metadata"], last["row"]["metadata"]] == [{"index": 0}, {"index": 2}]


def test_a_worker_that_dies_is_named_with_its_last_words() -> None:
    with pytest.raises(InputError, match=r"stopped: .*'unknown'(.|\n)*reasoning-gym:countdown"):
        list(ReasoningGymPart("countdown", 2, 0, {"unknown": 1}).read())


def test_a_problem_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasoning_gym, "PROBLEM_SECONDS", 1)
    with pytest.raises(InputError, match="more than 1 seconds of processor time") as raised:
        make("chain_sum", size=2, max_digits=10**9)
    assert raised.value.where == "reasoning-gym:chain_sum"


def test_the_worker_ends_with_a_killed_parent() -> None:
    script = (
        "from rlt_data.sources.procedural.reasoning_gym import open_reasoning_gym\n"
        "options = {'max_digits': 10**9}\n"
        "list(open_reasoning_gym('reasoning-gym:chain_sum', size=2, seed=0, options=options).read())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        worker = wait_for(lambda: find_worker(parent.pid))
    finally:
        parent.kill()
        parent.wait()
    # The limit of processor time would end it as well, after 60 seconds of it.
    wait_for(lambda: not is_running(worker))


def find_worker(parent: int) -> int | None:
    children = Path(f"/proc/{parent}/task/{parent}/children")
    for child in children.read_text().split() if children.exists() else []:
        if is_running(int(child)):
            return int(child)
    return None


def is_running(process: int) -> bool:
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
    return b"reasoning_gym_worker" in command


def wait_for(find: Any) -> Any:
    until = time.monotonic() + 300
    while not (found := find()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found
