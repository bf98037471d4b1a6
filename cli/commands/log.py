"""`rlt-data log`: list the runs, or show one."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlt_data.terminal import print_text, show_block, show_line

from ..common import JsonOption, LakeOption, open_lake, print_json, print_rows

if TYPE_CHECKING:
    from rlt_data.lake.runs import RunRecord


def command(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run id or its beginning: show this run in full.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="List only runs of this stage.")] = None,
    limit: Annotated[
        int, typer.Option(min=0, max=10**12, help="List at most this many runs; 0 lists all.")
    ] = 30,
    lake: LakeOption = None,
    json: JsonOption = False,
) -> None:
    """List the runs, newest first, or show one run in full."""
    opened = open_lake(lake)
    if run is not None:
        record = describe_run(opened.run(run))
        if json:
            print_json(record)
        else:
            _print_record(record)
        return
    runs = [record for record in reversed(opened.runs()) if stage in (None, record.stage)]
    shown = runs[:limit] if limit else runs
    if json:
        print_json([describe_run(record) for record in shown])
        return
    if not shown:
        print_text(f"no runs of the stage {stage!r}" if stage else "this lake has no runs yet")
    print_rows([_make_row(record) for record in shown], right=frozenset({"rows in", "rows out", "rejected"}))
    if len(runs) > len(shown):
        print_text(f"... and {len(runs) - len(shown)} older; --limit 0 lists all")


def describe_run(run: RunRecord) -> dict[str, Any]:
    """Convert a run's newest state to plain values, ready for JSON."""
    return {
        "run_id": run.run_id,
        "stage": run.stage,
        "status": run.status,
        "attempt": run.attempt,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "error": run.error,
        "counts": dict(run.counts),
        "inputs": [vars(state) for state in run.inputs],
        "outputs": [vars(state) for state in run.outputs],
        "models": [dict(model) for model in run.models],
        "config": dict(run.config),
        "packages": dict(run.packages),
        "fingerprint": run.fingerprint,
        "scheme_version": run.scheme_version,
    }


def _make_row(run: RunRecord) -> dict[str, Any]:
    wrote = run.counts.get("tables", {})
    return {
        "run": run.run_id[:12],
        "stage": run.stage,
        "status": "interrupted" if (run.error or "").startswith("interrupted") else run.status,
        "started": run.started_at.isoformat(sep=" ", timespec="seconds"),
        "rows in": run.counts.get("rows_in"),
        "rows out": run.counts.get("rows_out"),
        "rejected": run.counts.get("rejected"),
        "tables": ", ".join(
            f"{state.table}@{state.version}" for state in run.outputs if wrote.get(state.table)
        ),
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
