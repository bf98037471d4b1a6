from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from rlt_data.errors import ModelError
from rlt_data.tasks.grading.math.verifier import AnswerVerifier
from rlt_data.tasks.grading.pool import WorkerPool

# Seconds to sleep: longer than any test waits.
ENDLESS = 100_000


def test_a_call_that_never_ends_is_killed_and_only_it_is_lost() -> None:
    with WorkerPool("time:sleep", seconds=1.0, processes=2) as pool:
        pool.run([0, 0])
        before = {child.process.pid: child.process for child in pool._children}
        replies = pool.run([ENDLESS, 0, 0, 0])
        after = {child.process.pid for child in pool._children}
    assert [reply.failure for reply in replies] == ["timed_out", None, None, None]
    assert replies[0].detail == "the comparison took longer than 1 seconds"
    # One of them was killed; the other one went on.
    (killed,) = set(before) - after
    assert before[killed].returncode == -9
    assert len(set(before) & after) == 1


def test_several_calls_that_never_end_take_no_worker_from_the_others() -> None:
    with WorkerPool("time:sleep", seconds=1.0, processes=1) as pool:
        replies = pool.run([ENDLESS, 0, ENDLESS, 0])
    assert [reply.failure for reply in replies] == ["timed_out", None, "timed_out", None]


def test_a_child_that_dies_is_replaced() -> None:
    with WorkerPool("time:sleep", processes=1) as pool:
        pool.run([0])
        (child,) = pool._children
        child.process.kill()
        child.process.wait()
        assert pool.run([0, 0])[1].failure is None
    assert child.process.returncode is not None


def test_a_call_that_ends_its_process_fails_with_a_reason() -> None:
    with WorkerPool("os:_exit", processes=1) as pool:
        (reply,) = pool.run([3])
    assert (reply.failure, reply.detail) == ("failed", "the process that compared answers ended")


@pytest.mark.parametrize(
    ("function", "request_", "detail"),
    [
        ("math:factorial", -1, "the comparison raised ValueError"),
        ("builtins:bytes", 10**12, "the comparison needs too much memory"),
        ("pydoc:help", "nothing", None),
    ],
)
def test_what_a_call_raises_or_prints_does_not_break_the_pipe(
    function: str, request_: object, detail: str | None
) -> None:
    with WorkerPool(function, processes=1) as pool:
        first, second = pool.run([request_, request_])
    assert (first.detail, second.detail) == (detail, detail)


def test_a_function_that_cannot_be_imported_is_an_error_with_a_command_to_run() -> None:
    with WorkerPool("rlt_data:nothing", processes=1) as pool, pytest.raises(ModelError, match="cannot start"):
        pool.run([0])


def test_no_child_outlives_the_pool() -> None:
    with WorkerPool("time:sleep", processes=2) as pool:
        pool.run([0, 0, 0])
        children = [child.process for child in pool._children]
        assert len(children) == 2
    assert all(child.poll() is not None for child in children)


def test_a_child_ends_when_its_parent_was_killed() -> None:
    program = (
        "from rlt_data.tasks.grading.pool import WorkerPool\n"
        "pool = WorkerPool('time:sleep', processes=1)\n"
        "pool.run([0])\n"
        "print(pool._children[0].process.pid, flush=True)\n"
        "input()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    with open(f"/proc/{child}/cmdline", encoding="utf-8") as file:  # noqa: PTH123
        assert "grading.child" in file.read()
    parent.kill()
    parent.communicate()
    ended = threading.Event()

    def wait() -> None:
        while True:
            try:
                with open(f"/proc/{child}/stat", encoding="utf-8") as file:  # noqa: PTH123
                    if file.read().rpartition(")")[2].split()[0] == "Z":
                        break
            except FileNotFoundError:
                break
            ended.wait(0.05)
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    assert ended.wait(120)


def test_the_verifier_works_in_a_thread() -> None:
    """An alarm-based time limit fails there; ours is in another process."""
    verdicts: list[str] = []

    def work() -> None:
        with AnswerVerifier(processes=1) as verifier:
            verdicts.extend(verifier.verify([("x + y", "y + x"), ("x", "y")]))

    pytest.importorskip("math_verify")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert verdicts == ["correct", "wrong"]


def test_pairs_are_counted_as_they_are_done() -> None:
    pytest.importorskip("math_verify")
    done: list[int] = []
    pairs = [("1", "1"), ("x + y", "y + x"), ("", "4"), ("4", None)]
    with AnswerVerifier(processes=1) as verifier:
        verdicts = verifier.verify(pairs, on_done=lambda: done.append(1))
    assert verdicts == ["correct", "correct", "no_answer", "no_answer"]
    assert len(done) == len(pairs)
