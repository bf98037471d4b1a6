"""The grader `code`: runs the program of a completion against unit tests, in a sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import assert_never

from rlt_data.tasks.extraction import COMPLETION_LIMIT
from rlt_data.tasks.grading.base import (
    Extraction,
    Grade,
    GraderName,
    GraderSettings,
    Item,
    Verdict,
    explain_no_answer,
)
from rlt_data.tasks.grading.code.sandbox import Outcome, Sandbox
from rlt_data.tasks.grading.code.unit_tests import (
    UnitTest,
    UnitTests,
    agree,
    agree_on_value,
    find_program,
    read_tests,
)

RULES = "1"
"""Version of the rules of this grader."""

SECONDS = 10.0
"""Processor time of one test; the limit of the published graders of APPS and TACO is of this order."""


class CodeGrader:
    """Runs the last block of Python of a completion; it is correct where it passes every test.

    Without `settings.run_code` nothing runs, and every question is `ungradable`. Raises `UsageError` where
    code may run and there is no sandbox that works; see `Sandbox`.
    """

    name: GraderName = "code"

    def __init__(self, settings: GraderSettings) -> None:
        # What is ungradable because nothing may run is graded once it may.
        self.version = RULES if settings.run_code else f"{RULES}+not-run"
        self._sandbox = Sandbox(seconds=SECONDS) if settings.run_code else None
        self._processes = settings.processes or 2

    def grade(self, items: Sequence[Item], extraction: Extraction) -> list[Grade]:
        """Grade completions; the grades come in the order of the items."""
        with ThreadPoolExecutor(self._processes) as threads:
            return list(threads.map(lambda item: self._grade(item, extraction), items))

    def _grade(self, item: Item, extraction: Extraction) -> Grade:
        text = item.response if extraction == "stated" else item.completion
        program = find_program(text[-COMPLETION_LIMIT:]) if text is not None else None
        tests = read_tests(item.metadata)
        detail: str | None = None
        verdict: Verdict
        if tests is None:
            verdict, detail = "ungradable", "the metadata of the question has no unit tests in `input_output`"
        elif self._sandbox is None:
            verdict, detail = "ungradable", "it is graded by running code, which is not allowed (run_code)"
        elif program is None:
            verdict = explain_no_answer(item)
        else:
            verdict, detail = run_tests(self._sandbox, program, tests)
        how = None if program is None else "code_block"
        return Grade(item.key, self.name, self.version, extraction, program, how, verdict, detail)

    def close(self) -> None:
        """Do nothing: every program has ended."""


def run_tests(sandbox: Sandbox, program: str, tests: UnitTests) -> tuple[Verdict, str | None]:
    """Run the tests in order, until one fails."""
    for number, test in enumerate(tests.tests, 1):
        outcome, passed = _run_test(sandbox, program, tests.function, test)
        where = f"test {number} of {len(tests.tests)}"
        match outcome.ending:
            case "timed_out":
                return "timed_out", f"{where} took too long"
            case "failed":
                return "wrong", f"{where}: {outcome.error or 'the program failed'}"
            case "finished":
                if not passed:
                    return "wrong", f"{where}: the output is not the expected one"
            case never:
                assert_never(never)
    return "correct", None


def _run_test(sandbox: Sandbox, program: str, function: str | None, test: UnitTest) -> tuple[Outcome, bool]:
    if function is None:
        outcome = sandbox.run(program, test.given)
        return outcome, agree(test, outcome.output)
    outcome, value = sandbox.call(program, function, test.given)
    return outcome, agree_on_value(test, value)
