"""`rlt-data vacuum`: fewer and smaller files, the same rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from rlt_data.lake.upkeep import RETENTION_HOURS

from ..common import JsonOption, LakeOption, make_console, open_lake, print_json, print_rows


def command(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]...", help="Tables to tidy; all of them by default.")
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it. Without this, only say what would be removed.")
    ] = False,
    retention_hours: Annotated[
        int,
        typer.Option(min=0, help="Keep every version younger than this; older ones cannot be read again."),
    ] = RETENTION_HOURS,
    drop_pinned: Annotated[
        bool,
        typer.Option("--drop-pinned", help="Also drop versions that unfinished runs still read from."),
    ] = False,
    lake: LakeOption = None,
    json: JsonOption = False,
) -> None:
    """Compact the tables and remove files that no kept version refers to; a dry run unless --apply.

    No row changes, and no digest. What is lost is reading versions older than the retention.
    """
    opened = open_lake(lake)
    compacted = {done.table: done for done in opened.compact(tables or None)} if apply else {}
    done = opened.vacuum(
        tables or None, retention_hours=retention_hours, dry_run=not apply, drop_pinned=drop_pinned
    )
    rows = [
        {
            "table": vacuum.table,
            "files joined": f"{c.files_before} -> {c.files_after}"
            if (c := compacted.get(vacuum.table))
            else "-",
            "removed" if apply else "would remove": len(vacuum.files),
            "versions kept for unfinished runs": ", ".join(map(str, vacuum.kept_versions)) or "-",
        }
        for vacuum in done
    ]
    if json:
        print_json(
            [
                asdict(vacuum)
                | ({"compacted": asdict(compacted[vacuum.table])} if vacuum.table in compacted else {})
                for vacuum in done
            ]
        )
        return
    print_rows(rows, right=frozenset({"removed", "would remove"}))
    if not apply:
        make_console().print("\nnothing was changed; --apply compacts and removes")
