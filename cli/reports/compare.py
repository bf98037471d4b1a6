"""Print a comparison: a row for each model and a column for each task, then the differences."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, assert_never

import typer

from rlt_data.errors import UsageError
from rlt_data.terminal import print_text, show_line

from ..common import print_json_text, print_rows
from ..results import open_output, write_result
from ..summary import print_summary

if TYPE_CHECKING:
    import polars as pl

    from rlt_data.lake import Lake
    from rlt_data.stages.runtime.contract import StageSummary

OVERALL = "overall"
Form = Literal["table", "markdown", "csv", "json", "parquet"]
Table = list[dict[str, str]]

OPTIONS: Mapping[str, tuple[Any, Any]] = {
    "format": (
        Annotated[
            Form,
            typer.Option(
                "--format",
                "-f",
                help="Format of the comparison: two tables, or the rows of `comparisons`.",
                rich_help_panel="Output",
            ),
        ],
        "table",
    ),
    "markdown": (
        Annotated[
            bool,
            typer.Option("--markdown", help="The same as --format markdown.", rich_help_panel="Output"),
        ],
        False,
    ),
    "spreadsheet_safe": (
        Annotated[
            bool,
            typer.Option(
                "--spreadsheet-safe",
                help="In CSV, put an apostrophe before cells that a spreadsheet would run as formulas.",
                rich_help_panel="Output",
            ),
        ],
        False,
    ),
    "output": (
        Annotated[
            Path | None,
            typer.Option(
                "--output", "-o", help="Write to this file instead of stdout.", rich_help_panel="Output"
            ),
        ],
        None,
    ),
}


def check_options(options: Mapping[str, Any]) -> None:
    """Raise `UsageError` for options that exclude one another."""
    if options["markdown"] and options["format"] not in ("table", "markdown"):
        raise UsageError(
            f"--markdown and --format {options['format']} exclude each other", remedy="give one of them"
        )
    if options["spreadsheet_safe"] and (options["markdown"] or options["format"] != "csv"):
        raise UsageError("--spreadsheet-safe is for CSV", remedy="add --format csv")
    if options["format"] == "parquet" and options["output"] is None:
        raise UsageError("Parquet cannot be written to stdout", where="--format", remedy="add --output FILE")


def print_result(lake: Lake, summary: StageSummary, options: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the comparison of a run; with the summary where both can be told apart."""
    rows = read_rows(lake, summary)
    output: Path | None = options["output"]
    form: Form = "markdown" if options["markdown"] else options["format"]
    if as_json:
        whole = {**summary.model_dump(mode="json"), "comparisons": rows.to_dicts()}
        print_json_text(json.dumps(whole, indent=2, ensure_ascii=False))
        if output is None:
            return
    match form:
        case "table" if output is None:
            if not as_json:
                print_tables(rows, summary)
        case "table" | "markdown":
            with open_output(output) as stream:
                stream.write(write_markdown(rows, summary))
        case "csv" | "json" | "parquet":
            safe = options["spreadsheet_safe"]
            write_result(_stream_rows(lake, rows), form, output=output, spreadsheet_safe=safe)
        case never:
            assert_never(never)
    if not as_json and (output is not None or form == "table"):
        print_summary(lake, summary, as_json=False)


def read_rows(lake: Lake, summary: StageSummary) -> pl.DataFrame:
    """Read the rows of a comparison: scores, then differences, by task and in the order of the models."""
    import polars as pl

    order = {label: index for index, label in enumerate(summary.extra.get("models", []))}
    mine = lake.table("comparisons").scan().filter(pl.col("run_id") == summary.run_id).collect()
    return mine.sort(
        pl.col("baseline").is_not_null(),
        pl.col("task") == OVERALL,
        "task",
        pl.col("model").replace_strict(order, default=len(order), return_dtype=pl.Int64),
        "model",
    )


def print_tables(rows: pl.DataFrame, summary: StageSummary) -> None:
    """Print both tables as plain text."""
    for title, table in make_tables(rows, summary):
        print_text(show_line(title))
        print_rows(table, right=frozenset(table[0]) - {"model", "task"})
        print_text()


def write_markdown(rows: pl.DataFrame, summary: StageSummary) -> str:
    """Write both tables in Markdown, and the notes."""
    parts = []
    for title, table in make_tables(rows, summary):
        names = list(table[0])
        lines = [
            _join_cells(names),
            _join_cells("---" if name in ("model", "task") else "---:" for name in names),
            *(_join_cells(_escape_markdown(value) for value in row.values()) for row in table),
        ]
        parts.append(f"{_escape_markdown(title)}\n\n" + "\n".join(lines) + "\n")
    if summary.notes:
        parts.append("".join(f"- {_escape_markdown(note)}\n" for note in summary.notes))
    return "\n".join(parts)


def make_tables(rows: pl.DataFrame, summary: StageSummary) -> list[tuple[str, Table]]:
    """Make the tables, each with its title: scores, and differences where there are some."""
    every = rows.to_dicts()
    scores = [row for row in every if row["baseline"] is None]
    differences = [row for row in every if row["baseline"] is not None]
    extraction = every[0]["extraction"]
    tables = [
        (
            f"Scores in percent, with 95% intervals (questions x samples; extraction {extraction})",
            _make_scores(scores),
        )
    ]
    if differences:
        title = f"Differences from {differences[0]['baseline']} in points, on the same questions"
        tables.append((title, [_make_difference(row) for row in differences]))
    return tables


def _make_scores(scores: Sequence[Mapping[str, Any]]) -> Table:
    tasks = list(dict.fromkeys(row["task"] for row in scores))
    cells = {(row["model"], row["task"]): row for row in scores}
    titles = {task: _make_title(task, [row for row in scores if row["task"] == task]) for task in tasks}
    return [
        {"model": model, **{titles[task]: _make_score(cells.get((model, task))) for task in tasks}}
        for model in dict.fromkeys(row["model"] for row in scores)
    ]


def _make_title(task: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Name a column; with questions and samples where they are the same for all models."""
    sizes = {(row["questions"], row["samples"]) for row in rows}
    if task == OVERALL or len(sizes) > 1:
        return task
    questions, samples = sizes.pop()
    return f"{task} ({questions:,} x {samples:g})"


def _make_score(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{_percent(row['score'])} [{_percent(row['score_low'])}, {_percent(row['score_high'])}]"


def _make_difference(row: Mapping[str, Any]) -> dict[str, str]:
    low, high = _percent(row["difference_low"], sign="+"), _percent(row["difference_high"], sign="+")
    return {
        "task": row["task"],
        "model": row["model"],
        "questions": f"{row['questions']:,}",
        "difference": f"{_percent(row['difference'], sign='+')} [{low}, {high}]",
        "p": "< 0.0001" if row["p_value"] < 0.0001 else f"{row['p_value']:.2g}",
        "separated": "yes" if row["separated"] else "no",
        "samples needed": _describe_samples(row),
        "questions needed": "-" if row["questions_needed"] is None else f"{row['questions_needed']:,}",
    }


def _describe_samples(row: Mapping[str, Any]) -> str:
    if row["questions_needed"] is None:
        return "-"
    if row["samples_needed"] is None:
        return "too few questions"
    return f"{'>= ' if row['samples_at_least'] else ''}{row['samples_needed']:,}"


def _percent(share: float, sign: str = "") -> str:
    return f"{round(100 * share, 1) + 0.0:{sign}.1f}"


def _join_cells(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape_markdown(text: str) -> str:
    """Write text on one line, without what ends a cell, or becomes a tag, a link or emphasis."""
    escaped = show_line(text).replace("\\", "\\\\").replace("|", "\\|")
    for character in "<`*_[":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped


def _stream_rows(lake: Lake, rows: pl.DataFrame) -> Any:
    from rlt_data.lake import QueryStream

    schema = lake.table("comparisons").schema.arrow
    return QueryStream(schema, iter(rows.to_arrow().select(schema.names).cast(schema).to_batches()))
