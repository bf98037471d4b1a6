"""Print the results of an evaluation: one line a model, task and extraction, then how they were obtained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlt_data.terminal import print_text, show_line

from ..common import print_rows
from ..summary import print_summary

if TYPE_CHECKING:
    from rlt_data.lake import Lake
    from rlt_data.stages.runtime.contract import StageSummary

OPTIONS: Mapping[str, tuple[Any, Any]] = {}

_LEFT = frozenset({"task", "model", "extraction", "grader", "95% interval", "bounds"})
_VERDICTS = ("no_answer", "unclosed_think", "timed_out", "failed", "ungradable")


def check_options(options: Mapping[str, Any]) -> None:
    """Accept everything: there are no options."""


def print_result(lake: Lake, summary: StageSummary, options: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the results and the summary; as JSON the summary, which has the results."""
    if as_json:
        print_summary(lake, summary, as_json=True)
        return
    results = summary.extra.get("results", [])
    print_results(results)
    others = {name: value for name, value in summary.extra.items() if name != "results"}
    print_summary(lake, summary.model_copy(update={"extra": others}), as_json=False)


def print_results(results: Sequence[Mapping[str, Any]]) -> None:
    """Print results as `list_results` returns them."""
    rows = [_make_row(result) for result in results]
    if not rows:
        return
    print_rows(rows, right=frozenset(rows[0]) - _LEFT)
    print_text()
    for text in dict.fromkeys(text for result in results for text in _describe_settings(result)):
        print_text(show_line(text))
    print_text()


def _make_row(result: Mapping[str, Any]) -> dict[str, Any]:
    fewest, most = result["samples"]
    verdicts = result["verdicts"]
    tokens = result["completion_tokens"]
    return {
        "task": result["task"],
        "model": result["model"],
        "extraction": result["extraction"],
        "grader": _join(result["grader"]),
        "items": f"{result['questions']:,}",
        "n": f"{result['completions']:,}",
        "k": f"{most}" if fewest == most else f"{fewest}-{most}",
        "avg@k": _write_share(result["score"]),
        "95% interval": f"{_write_share(result['low'])} to {_write_share(result['high'])}",
        "pass@k": _write_share(result["pass_at"].get(str(most))),
        "maj@k": _write_share(result["majority"]),
        "truncated": f"{result['truncated']:,}",
        **{name.replace("_", " "): f"{verdicts.get(name, 0):,}" for name in _VERDICTS},
        "tokens": "-" if tokens is None else f"{tokens:,}",
        "bounds": f"{_write_share(result['low_bound'])} to {_write_share(result['high_bound'])}",
    }


def _describe_settings(result: Mapping[str, Any]) -> list[str]:
    name = f"{result['task']}, {result['model']}"
    parts = [f"format {_join(result['format'])}"]
    if result["engines"]:
        parts.insert(0, _join(result["engines"]))
        parts += [
            f"{setting.replace('_', ' ')} {_join(result[setting])}"
            for setting in ("temperature", "top_p", "top_k", "max_tokens")
        ]
    lines = [f"{name}: {', '.join(parts)}; prompt hash {_join(result['prompt_hash'])}"]
    passes = [f"pass@{k} {_write_share(value)}" for k, value in result["pass_at"].items()]
    if len(passes) > 1:
        lines.append(f"{name}, {result['extraction']}: {', '.join(passes)} (unbiased)")
    letters = [
        f"{share['letter']} {share['chosen']:.1%} ({share['right']:.1%})" for share in result["letters"]
    ]
    if letters:
        lines.append(f"{name}, {result['extraction']}: letters chosen (and right): {', '.join(letters)}")
    return lines


def _write_share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _join(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
