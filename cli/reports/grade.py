"""Print what grading again changed: every verdict that flipped, then the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlt_data.terminal import print_text

from ..common import print_rows
from ..summary import print_summary
from .evaluate import print_results

if TYPE_CHECKING:
    from rlt_data.lake import Lake
    from rlt_data.stages.runtime.contract import StageSummary

OPTIONS: Mapping[str, tuple[Any, Any]] = {}

_CELL = 40


def check_options(options: Mapping[str, Any]) -> None:
    """Accept everything: there are no options."""


def print_result(lake: Lake, summary: StageSummary, options: Mapping[str, Any], *, as_json: bool) -> None:
    """Print flips, results and the summary; as JSON the summary, which has them."""
    if as_json:
        print_summary(lake, summary, as_json=True)
        return
    flips = summary.extra.get("flips", [])
    if flips:
        print_rows([_make_row(flip) for flip in flips], right=frozenset({"sample"}))
        print_text()
    print_results(summary.extra.get("results", []))
    others = {name: value for name, value in summary.extra.items() if name not in ("flips", "results")}
    print_summary(lake, summary.model_copy(update={"extra": others}), as_json=False)


def _make_row(flip: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "task": flip["task"],
        "model": flip["model"],
        "question": flip["question_id"][:12],
        "sample": str(flip["sample_index"]),
        "grader": flip["grader"],
        "extraction": flip["extraction"],
        "before": flip["old_verdict"],
        "now": flip["verdict"],
        "answer before": _shorten(flip["old_extracted_answer"]),
        "answer now": _shorten(flip["extracted_answer"]),
        "true answer": _shorten(flip["answer"]),
    }


def _shorten(text: str | None) -> str:
    if text is None:
        return "-"
    return text if len(text) <= _CELL else f"{text[: _CELL - 3]}..."
