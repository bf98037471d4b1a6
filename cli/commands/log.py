"""`rlt-data log`: list the runs, or show one."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlt_data.terminal import print_text, show_block, show_line

from ..common import JsonOption, LakeOption, open_lake, print_json, print_rows, read_number, warn_of_damage

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from rlt_data.lake import Lake
    from rlt_data.lake.runs import RunRecord

ROWS_LOST = "rows lost"
"""The status of a finished run whose rows are gone or damaged."""


def command(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run id or its beginning: show this run in full.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="List only runs of this stage.")] = None,
    limit: Annotated[
        int,
        typer.Option(
            parser=read_number(int, 0, 10**12),
            metavar="INTEGER",
            help="List at most this many runs; 0 lists all.",
        ),
    ] = 30,
    lake: LakeOption = None,
    json: JsonOption = False,
) -> None:
    """List the runs, newest first, or show one run in full.

    A run that was interrupted or failed resumes when its command is run again; the rows that it has committed
    are kept. Whether a process still works on it is known only on the machine where that process was started.
    """
    from rlt_data.lake.runs import sort_by_start

    opened = open_lake(lake)
    found = opened.run(run) if run is not None else None
    lost = {damage.run_id for damage in warn_of_damage(opened) if damage.run_id is not None}
    if found is not None:
        record = describe_run(opened, found, lost)
        if json:
            print_json(record)
        else:
            _print_record(record)
        return
    runs = [record for record in opened.runs() if stage in (None, record.stage)]
    runs = sort_by_start(opened, runs)[::-1]
    shown = runs[:limit] if limit else runs
    if json:
        print_json([describe_run(opened, record, lost) for record in shown])
        return
    if not shown:
        print_text(f"no runs of the stage {stage!r}" if stage else "this lake has no runs yet")
    rows = [_make_row(opened, record, lost) for record in shown]
    print_rows(rows, right=frozenset({"rows in", "rows out", "rejected"}))
    if any(row["status"] == ROWS_LOST for row in rows):
        print_text(
            f"\n{ROWS_LOST}: the run finished, and rows that it wrote are gone or damaged; `rlt-data verify` "
            "names them, and its command, run again, makes them anew"
        )
    if any(row["status"] not in ("finished", "running", ROWS_LOST) for row in rows):
        print_text("\nunfinished runs have the rows shown so far; run their commands again to resume them")
    if len(runs) > len(shown):
        print_text(f"... and {len(runs) - len(shown)} older; --limit 0 lists all")


def describe_run(lake: Lake, run: RunRecord, lost: Collection[str] = ()) -> dict[str, Any]:
    """Convert a run's newest state to plain values, ready for JSON; `lost` are runs that have lost rows."""
    return {
        "run_id": run.run_id,
        "stage": run.stage,
        "status": run.status,
        "state": _find_state(run, lost),
        "attempt": run.attempt,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "error": run.error,
        **({} if run.finished else {"rows_so_far": _count_rows(lake, run)}),
        "counts": dict(run.counts),
        "inputs": [vars(state) for state in run.inputs],
        "outputs": [vars(state) for state in run.outputs],
        "models": [dict(model) for model in run.models],
        "config": dict(run.config),
        "packages": dict(run.packages),
        "fingerprint": run.fingerprint,
        "scheme_version": run.scheme_version,
    }


def _count_rows(lake: Lake, run: RunRecord) -> dict[str, int] | None:
    """Count the rows that a run has now, by table; None where a table is damaged."""
    from rlt_data.errors import LakeError
    from rlt_data.lake.integrity.rows import count_rows_so_far

    try:
        return count_rows_so_far(lake, run)
    except LakeError:
        return None


def _find_state(run: RunRecord, lost: Collection[str]) -> str:
    from rlt_data.lake.sessions import find_state

    return ROWS_LOST if run.finished and run.run_id in lost else find_state(run)


def _make_row(lake: Lake, run: RunRecord, lost: Collection[str]) -> dict[str, Any]:
    wrote: Mapping[str, int] = run.rows_written
    rows_out, rejected = run.counts.get("rows_out"), run.counts.get("rejected")
    versions = {state.table: state.version for state in run.outputs}
    if not run.finished:
        wrote = _count_rows(lake, run) or {}
        rejected = wrote.get("rejects", 0)
        versions = {name: lake.table(name).version() for name in wrote}
        rows_out = sum(wrote.values()) - rejected
    return {
        "run": run.run_id[:12],
        "stage": run.stage,
        "status": _find_state(run, lost),
        "started": run.started_at.isoformat(sep=" ", timespec="seconds"),
        "rows in": run.counts.get("rows_in"),
        "rows out": rows_out,
        "rejected": rejected,
        "tables": ", ".join(f"{name}@{versions[name]}" for name in versions if wrote.get(name)),
    }


def _print_record(record: dict[str, Any]) -> None:
    for name, value in record.items():
        if isinstance(value, dict) and value:
            print_text(f"{name}:")
            for key, inner in value.items():
                print_text(f"  {show_line(key)}: {show_block(_format_value(inner), '    ')}")
        elif isinstance(value, list) and value:
            print_text(f"{name}:")
            for inner in value:
                print_text(
                    "  " + "  ".join(f"{key}={show_line(_format_value(part))}" for key, part in inner.items())
                )
        else:
            print_text(f"{name}: {show_block(_format_value(value))}")


def _format_value(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "-"
    if isinstance(value, dict | list):
        return json_module.dumps(value, ensure_ascii=False, default=str)
    return str(value)
