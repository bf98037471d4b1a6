"""`rlt-data tables`: list the tables, or describe one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlt_data.terminal import print_text

from ..common import JsonOption, LakeOption, open_lake, print_json, print_rows, warn_of_damage

if TYPE_CHECKING:
    from rlt_data.lake import Lake


def command(
    name: Annotated[str | None, typer.Argument(help="A table: describe its columns.")] = None,
    versions: Annotated[
        bool, typer.Option("--versions", help="List the versions of the table and the runs that wrote them.")
    ] = False,
    lake: LakeOption = None,
    json: JsonOption = False,
) -> None:
    """List the tables with rows, version and key; or describe the columns of one.

    Every older version can be queried: rlt-data sql 'select count(*) from "traces@3"'.
    """
    opened = open_lake(lake)
    warn_of_damage(opened)
    if name is None:
        rows = [describe_table(opened, table.name) for table in opened.tables()]
        if json:
            print_json(rows)
        else:
            print_rows(
                [_group_digits(row) for row in rows], right=frozenset({"rows", "version"}), wrap="about"
            )
        return
    if versions:
        rows = list_versions(opened, name)
        if json:
            print_json(rows)
        else:
            print_rows(rows, right=frozenset({"version", "rows added"}))
        return
    columns = [
        {
            "column": column.name,
            "type": str(column.type),
            "null": "yes" if column.nullable else "no",
            "about": column.about,
        }
        for column in opened.table(name).schema.columns
    ]
    if json:
        print_json(describe_table(opened, name) | {"columns": columns})
        return
    table = describe_table(opened, name)
    print_text(f"{name}: {table['about']}")
    print_text(f"{table['rows']:,} rows, version {table['version']}, key {table['key']}\n")
    print_rows(columns, wrap="about")


def describe_table(lake: Lake, name: str) -> dict[str, Any]:
    """Describe one table: its rows, version (null before the first write), key, and what a row is."""
    table = lake.table(name)
    version = table.version()
    return {
        "table": table.name,
        "rows": table.count() if version >= 0 else 0,
        "version": version if version >= 0 else None,
        "key": table.schema.key,
        "about": table.schema.about,
    }


def list_versions(lake: Lake, name: str) -> list[dict[str, Any]]:
    """List the versions of a table, newest first, with the run that wrote each."""
    return [
        {
            "version": version.version,
            "written": version.timestamp.isoformat(sep=" ", timespec="seconds"),
            "operation": version.operation,
            "rows added": version.rows_added,
            "run": version.run_id,
        }
        for version in lake.table(name).versions()
    ]


def _group_digits(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"rows": f"{row['rows']:,}", "version": "-" if row["version"] is None else row["version"]}
