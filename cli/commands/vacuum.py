"""`rlt-data vacuum`: compact the tables and remove unreferenced files."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from rlt_data.lake.upkeep import MOST_HOURS, PINNED_HOURS, RETENTION_HOURS
from rlt_data.terminal import print_text

from ..common import JsonOption, LakeOption, open_lake, print_json, print_rows, read_number


def command(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]...", help="Tables to compact; default: all.")
    ] = None,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Compact and remove. Without this, only show what would be removed."),
    ] = False,
    retention_hours: Annotated[
        int,
        typer.Option(
            parser=read_number(int, 0, MOST_HOURS),
            metavar="INTEGER",
            help="Keep every version younger than this. Older versions can no longer be read.",
        ),
    ] = RETENTION_HOURS,
    pinned_hours: Annotated[
        int,
        typer.Option(
            parser=read_number(int, 0, MOST_HOURS),
            metavar="INTEGER",
            help="Keep versions that a failed or interrupted run reads for this long after its last session.",
        ),
    ] = PINNED_HOURS,
    drop_pinned: Annotated[
        bool,
        typer.Option(
            "--drop-pinned",
            help="Also drop versions that unfinished runs read, whatever their age. They resume from the "
            "newest version if it has the same rows.",
        ),
    ] = False,
    lake: LakeOption = None,
    json: JsonOption = False,
) -> None:
    """Compact the tables and remove files that no kept version refers to; a dry run unless --apply.

    Rows and digests stay the same. Versions older than the retention can no longer be read.
    """
    opened = open_lake(lake)
    compacted = {done.table: done for done in opened.compact(tables or None)} if apply else {}
    done = opened.vacuum(
        tables or None,
        retention_hours=retention_hours,
        dry_run=not apply,
        pinned_hours=pinned_hours,
        drop_pinned=drop_pinned,
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
        print_text("\nnothing was changed; add --apply to compact and remove")
