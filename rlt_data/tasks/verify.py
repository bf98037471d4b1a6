"""Compare answers with the true ones, using math-verify in child processes that can be killed.

Symbolic comparison can run forever or use all memory on an adversarial expression, and a time limit
inside the process (an alarm, a thread) does not stop native code. So child processes read pairs from a
pipe: one that does not answer in time is killed and replaced, and only its pair has no result.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

from rlt_data.errors import ModelError, require_module
from rlt_data.tasks.answers import extract_answer

Verdict = Literal["correct", "incorrect", "no_answer", "timeout", "failed"]

START_SECONDS = 120.0
"""Seconds that a child may take to import the symbolic library before its first answer."""
RECYCLE_AFTER = 2_000
"""Pairs after which a child is replaced: symbolic libraries cache what they have seen."""


_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")


@dataclass
class _Child:
    """One child process; `pair` is the index of its current pair, `deadline` the time to answer it."""

    process: subprocess.Popen[bytes]
    pair: int | None = None
    deadline: float = 0.0
    answered: int = 0
    ready: bool = False
    buffer: bytearray = field(default_factory=bytearray)


class AnswerVerifier:
    """Compares answers in up to `processes` children, each pair within `seconds`. Use as a context manager.

    Raises `MissingExtraError` where math-verify is not installed.
    """

    def __init__(self, *, seconds: float = 5.0, processes: int | None = None) -> None:
        require_module("math_verify", "verify")
        self._seconds = seconds
        self._processes = processes or max(1, min(8, os.cpu_count() or 1))
        self._children: list[_Child] = []

    def __enter__(self) -> AnswerVerifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the children."""
        for child in self._children:
            _end(child)
        self._children = []

    def verify(
        self, pairs: Iterable[tuple[str | None, str | None]], *, on_done: Callable[[], None] | None = None
    ) -> list[Verdict]:
        """Compare (true answer, given answer) pairs; the verdicts come in the order of the pairs.

        Equal texts are `correct` and a missing answer is `no_answer`, without a child; `timeout` and `failed`
        (out of memory, a crash) mean that the comparison gave no result. `on_done` is called after every
        pair. Raises `ModelError` where a child cannot start.
        """
        given = list(pairs)
        verdicts: list[Verdict | None] = [_decide_quickly(true, answer) for true, answer in given]
        waiting = deque(i for i, verdict in enumerate(verdicts) if verdict is None)
        for _ in range(len(given) - len(waiting)):
            if on_done:
                on_done()
        with selectors.DefaultSelector() as selector:
            for child in self._children:
                selector.register(_get_output(child), selectors.EVENT_READ, child)
            while waiting or any(child.pair is not None for child in self._children):
                self._assign(waiting, given, selector)
                for index, verdict in self._collect(selector):
                    verdicts[index] = verdict
                    if on_done:
                        on_done()
        return [verdict or "failed" for verdict in verdicts]

    def _assign(
        self,
        waiting: deque[int],
        pairs: Sequence[tuple[str | None, str | None]],
        selector: selectors.BaseSelector,
    ) -> None:
        while waiting and len(self._children) < min(self._processes, self._count_busy() + len(waiting)):
            child = _start(self._seconds)
            self._children.append(child)
            selector.register(_get_output(child), selectors.EVENT_READ, child)
        for child in [c for c in self._children if c.pair is None]:
            if not waiting:
                return
            child.pair = waiting.popleft()
            limit = self._seconds if child.ready else self._seconds + START_SECONDS
            child.deadline = time.monotonic() + limit
            line = json.dumps(pairs[child.pair]).encode() + b"\n"
            try:
                assert child.process.stdin is not None
                child.process.stdin.write(line)
                child.process.stdin.flush()
            except BrokenPipeError:
                # It died after its last answer; the selector will report the closed pipe.
                continue

    def _count_busy(self) -> int:
        return sum(child.pair is not None for child in self._children)

    def _collect(self, selector: selectors.BaseSelector) -> list[tuple[int, Verdict]]:
        busy = [child for child in self._children if child.pair is not None]
        wait = max(0.0, min(child.deadline for child in busy) - time.monotonic())
        results: list[tuple[int, Verdict]] = []
        for key, _ in selector.select(timeout=wait):
            child: _Child = key.data
            data = os.read(_get_output(child), 65536)
            child.buffer += data
            while b"\n" in child.buffer:
                line, _, rest = bytes(child.buffer).partition(b"\n")
                child.buffer = bytearray(rest)
                if line == b"ready":
                    child.ready = True
                    if child.pair is not None:
                        child.deadline = time.monotonic() + self._seconds
                elif child.pair is not None:
                    results.append((child.pair, _read_verdict(line)))
                    child.pair, child.answered = None, child.answered + 1
            if not data:
                if not child.ready:
                    self.close()
                    raise ModelError(
                        "the process that compares answers cannot start",
                        where=f"{sys.executable} -m rlt_data.tasks.verify_child",
                        remedy="run that command to see its error",
                    )
                results += self._drop(child, selector, "failed")
            elif child.pair is None and child.answered >= RECYCLE_AFTER:
                self._drop(child, selector, "failed")
        now = time.monotonic()
        for child in [c for c in self._children if c.pair is not None and c.deadline <= now]:
            results += self._drop(child, selector, "timeout")
        return results

    def _drop(
        self, child: _Child, selector: selectors.BaseSelector, verdict: Verdict
    ) -> list[tuple[int, Verdict]]:
        selector.unregister(_get_output(child))
        _end(child)
        self._children.remove(child)
        return [] if child.pair is None else [(child.pair, verdict)]


def find_trace_answer(trace_solution: str | None, think: str | None, completion: str | None) -> str | None:
    """Find the answer of a trace: in its solution, else in its thinking, else anywhere in the completion.

    Explanations seldom mark their answer; where no text does, the answer is the last number of the first
    text that exists, as in the flexible extraction of common evaluation harnesses.
    """
    texts = [text for text in (trace_solution, think, completion) if text and text.strip()]
    for text in texts:
        answer = extract_answer(text)
        if answer is not None:
            return answer
    numbers = _NUMBER.findall(texts[0]) if texts else []
    return str(numbers[-1]).replace(",", "") if numbers else None


def _decide_quickly(true: str | None, answer: str | None) -> Verdict | None:
    if not true or not answer or not true.strip() or not answer.strip():
        return "no_answer"
    return "correct" if true.strip() == answer.strip() else None


def _start(seconds: float) -> _Child:
    return _Child(
        subprocess.Popen(
            [sys.executable, "-m", "rlt_data.tasks.verify_child", str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    )


def _end(child: _Child) -> None:
    child.process.kill()
    child.process.wait()
    for stream in (child.process.stdin, child.process.stdout):
        if stream is not None:
            try:
                stream.close()
            except BrokenPipeError:
                continue


def _get_output(child: _Child) -> int:
    assert child.process.stdout is not None
    return child.process.stdout.fileno()


def _read_verdict(line: bytes) -> Verdict:
    if line == b"true":
        return "correct"
    return "incorrect" if line == b"false" else "failed"
