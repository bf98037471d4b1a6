"""Reads the record of runs for the checks, and finds the files of `runs` that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence

from rlt_data.errors import LakeError
from rlt_data.lake.catalog import Catalog
from rlt_data.lake.integrity.reading import is_reading_error
from rlt_data.lake.runs import RunRecord, list_runs, read_states
from rlt_data.lake.tables.damage import Damage, describe_file, list_added_files
from rlt_data.lake.tables.files import scan_files
from rlt_data.lake.tables.writer import describe_failure


def read_runs(catalog: Catalog) -> tuple[Sequence[RunRecord] | None, list[Damage]]:
    """Return the newest state of each run, or None and what of `runs` is damaged."""
    try:
        return list_runs(catalog), []
    except BaseException as error:
        if not isinstance(error, LakeError | OSError) and not is_reading_error(error):
            raise
        what = _describe(error)
    found = _find_unreadable_files(catalog)
    return None, found or [Damage("runs", "log", "runs", f"cannot be read: {what}")]


def _find_unreadable_files(catalog: Catalog) -> list[Damage]:
    runs = catalog.table("runs")
    try:
        delta = runs.open_version(None)
        if delta is None:
            return []
        files = list_added_files(delta)
        uris = {uri.rpartition("/")[2]: uri for uri in runs.list_files(delta)}
    except (LakeError, OSError):
        return []
    found = []
    for path, file in files.items():
        try:
            read_states(scan_files([uris[path]], runs.schema, catalog.storage_options).collect())
        except BaseException as error:
            if not isinstance(error, LakeError | OSError) and not is_reading_error(error):
                raise
            found.append(describe_file("runs", file, f"cannot be read: {_describe(error)}"))
    return found


def _describe(error: BaseException) -> str:
    return error.what if isinstance(error, LakeError) else describe_failure(error)
