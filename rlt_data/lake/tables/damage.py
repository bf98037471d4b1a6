"""Damage to a table, and the quick check of its data files: existence, size, and the end of the file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from rlt_data.errors import LakeError
from rlt_data.lake.tables.data_files import FileRecord
from rlt_data.lake.tables.folder import TableFolder


class DamageError(LakeError):
    """Files of a table are damaged."""


DamageKind = Literal["file", "log", "version", "rows", "record", "note"]
REPAIR_REMEDY = "`rlt-data verify --repair`, then run the commands that made these rows again"
_MAGIC = b"PAR1"
_TAIL = 8
# Each look at one file of object storage is a request; a list has a thousand.
_LIST_FROM = 20


@dataclass(frozen=True)
class Damage:
    """One damage: `what` is wrong with `path`, and whose rows are affected.

    `kind` is `file` (a data file), `log` (an entry or checkpoint of the Delta log), `version` (the log ends
    before a version that a run recorded), `rows` (a finished run has fewer rows than it recorded), `record`
    (a run wrote rows and is not in `runs`) or `note` (the note of a table's newest version). `path` is that
    of a file within the lake, or the table's name. `rows` is the number of rows affected, where it is known.
    """

    table: str
    kind: DamageKind
    path: str
    what: str
    run_id: str | None = None
    stage: str | None = None
    rows: int | None = None


@dataclass(frozen=True)
class AddedFile:
    """A data file as the log describes it; `run_id` is the run that wrote all of its rows, or None."""

    path: str
    size: int
    rows: int | None
    run_id: str | None


def list_added_files(delta: DeltaTable) -> dict[str, AddedFile]:
    """List the data files of an opened version by path. Raises `LakeError` where the log cannot be read."""
    try:
        actions = pa.table(delta.get_add_actions(flatten=True))
    except (DeltaError, pa.ArrowException) as error:
        raise LakeError(
            f"the log cannot be read: {error}", where=delta.table_uri, remedy=REPAIR_REMEDY
        ) from error
    files = {}
    for file in actions.to_pylist():
        least, greatest = file.get("min.run_id"), file.get("max.run_id")
        run_id = least if least == greatest and not file.get("null_count.run_id") else None
        files[file["path"]] = AddedFile(file["path"], file["size_bytes"], file.get("num_records"), run_id)
    return files


def inspect_files(
    table: str, folder: TableFolder, files: Sequence[AddedFile], *, local: bool
) -> Iterator[Damage]:
    """Find files that are missing, have another size, or do not end as Parquet does, without reading them.

    In object storage the ends are not read: each would be a request.
    """
    sizes: dict[str, int | None] = {}
    if len(files) >= _LIST_FROM:
        sizes.update(folder.list_sizes())
    else:
        sizes = {file.path: folder.find_size(file.path) for file in files}
    for file in files:
        what = _compare_size(sizes.get(file.path), file.size)
        if what is None and local:
            what = _check_end(folder.read_end(file.path, _TAIL), file.size)
        if what is not None:
            yield describe_file(table, file, what)


def inspect_hashes(
    table: str, folder: TableFolder, files: Iterable[AddedFile], records: Mapping[str, FileRecord]
) -> Iterator[Damage]:
    """Find files whose bytes have not the SHA-256 that their commit recorded; others are not read."""
    for file in files:
        if file.path in records and folder.hash(file.path) != records[file.path].sha256:
            yield describe_file(table, file, "has not the recorded SHA-256: its content has changed")


def describe_file(table: str, file: AddedFile, what: str) -> Damage:
    """Describe a damaged data file."""
    return Damage(table, "file", f"{table}/{file.path}", what, run_id=file.run_id, rows=file.rows)


def explain_damage(found: Collection[Damage], where: str) -> DamageError:
    """Make the error for the damage that was found, of which there is some."""
    first = next(iter(found))
    whose = f" (rows of run {first.run_id})" if first.run_id else ""
    others = f", and {len(found) - 1} more damages" if len(found) > 1 else ""
    return DamageError(
        f"table {first.table} is damaged: {first.path} {first.what}{whose}{others}",
        where=where,
        remedy=f"`rlt-data verify` finds all damage; {REPAIR_REMEDY}",
    )


def _compare_size(found: int | None, recorded: int) -> str | None:
    if found is None:
        return "is missing"
    return None if found == recorded else f"has {found:,} bytes instead of {recorded:,}"


def _check_end(end: bytes, size: int) -> str | None:
    if end[4:] != _MAGIC or int.from_bytes(end[:4], "little") > size - len(end) - len(_MAGIC):
        return "does not end as a Parquet file"
    return None
