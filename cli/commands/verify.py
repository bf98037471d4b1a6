"""`rlt-data verify`: read every file of the lake and compare it with what was recorded."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlt_data.terminal import print_text

from ..common import JsonOption, LakeOption, QuietOption, open_lake, print_json, print_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlt_data.lake import Damage, Repair, TableReport


def command(
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Set damaged files and torn log entries aside, into _rlt_data/quarantine of the lake. The "
            "runs that lost rows then count as interrupted: run them again. No other process may write "
            "meanwhile.",
        ),
    ] = False,
    lake: LakeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read every file of every table, and compare it with what was recorded when it was written.

    Checks the SHA-256 and size of each file, the entries of each log, and the rows and key digests that runs
    recorded. Exits with 1 if something is damaged or missing, and was not repaired.
    """
    from rlt_data.progress import Reporter

    reporter = Reporter(quiet=quiet or json)
    reports = open_lake(lake, check=False).verify(reporter=reporter)
    damaged = any(report.damages for report in reports)
    done: Repair | None = None
    after: Sequence[TableReport] | None = None
    if repair and damaged:
        done = open_lake(lake, check=False).repair(reports)
        after = open_lake(lake, check=False).verify(reporter=reporter)
    if json:
        print_json(
            {
                "tables": [asdict(report) for report in reports],
                "repair": None if done is None else asdict(done),
                "after": None if after is None else [asdict(report) for report in after],
            }
        )
    else:
        _print_reports(reports)
        if done is not None:
            _print_repair(done)
        if after is not None and any(report.damages for report in after):
            print_text("\nafter the repair, this is still damaged:")
            _print_damages(after)
    if any(report.damages for report in (reports if after is None else after)):
        raise typer.Exit(1)


def _print_reports(reports: Sequence[TableReport]) -> None:
    rows = [
        {
            "table": report.table,
            "files": f"{report.files:,}",
            "bytes": f"{report.bytes:,}",
            "damages": len(report.damages),
        }
        for report in reports
        if report.files or report.damages
    ]
    print_rows(rows, right=frozenset({"files", "bytes", "damages"}))
    for report in reports:
        for note in report.notes:
            print_text(f"\n{report.table}: {note}")
    damages = sum(len(report.damages) for report in reports)
    if damages:
        print_text()
        _print_damages(reports)
    print_text(f"\n{damages} damaged" if damages else "\nnothing is damaged")


def _print_damages(reports: Sequence[TableReport]) -> None:
    print_rows([describe_damage(damage) for report in reports for damage in report.damages], wrap="what")


def describe_damage(damage: Damage) -> dict[str, Any]:
    """Make a row of a table for people: where the damage is, what it is, and whose rows are affected."""
    whose = f"{damage.stage or 'run'} {damage.run_id[:12]}" if damage.run_id else ""
    return {
        "where": damage.path,
        "what": damage.what,
        "run": whose,
        "rows": "" if damage.rows is None else f"{damage.rows:,}",
    }


def _print_repair(done: Repair) -> None:
    print_text(f"\nset {len(done.moved)} files aside, into {done.quarantine}")
    if done.interrupted:
        print_text("these runs count as interrupted; run their commands again to make the rows anew:")
        for damage in done.interrupted:
            print_text(
                f"  {damage.stage} {str(damage.run_id)[:12]}: {damage.table} {damage.what}"
                f" (`rlt-data log {str(damage.run_id)[:12]}` shows its options)"
            )
