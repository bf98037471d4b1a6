"""Explains errors of reading: which of the files that were used is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl
import pyarrow as pa

from rlt_data.errors import LakeError
from rlt_data.lake.catalog import Catalog
from rlt_data.lake.tables.damage import explain_damage
from rlt_data.lake.tables.writer import STORAGE_REMEDY, describe_failure

_ERRORS = (pl.exceptions.PolarsError, pa.ArrowException, UnicodeDecodeError)
_PARQUET = "parquet: "


@contextmanager
def explain_reading(catalog: Catalog) -> Iterator[None]:
    """Convert an error of reading to one that names the damaged file of a table, if there is one."""
    try:
        yield
    except BaseException as error:
        if not is_reading_error(error):
            raise
        check_used_files(catalog, error)
        if str(error).startswith(_PARQUET):
            raise LakeError(
                f"a table cannot be read: {describe_failure(error)}",
                where=catalog.uri,
                remedy=f"`rlt-data verify` finds damaged files; {STORAGE_REMEDY}",
            ) from error
        raise


def is_reading_error(error: BaseException) -> bool:
    """Whether an engine raised this error because it could not read a file."""
    # Each of the Rust libraries has a class of its own for its panics.
    return isinstance(error, _ERRORS) or type(error).__name__ == "PanicException"


def check_used_files(catalog: Catalog, cause: BaseException) -> None:
    """Raise `DamageError` where a file that was used so far is damaged, because of the error `cause`."""
    found = [damage for table in catalog.tables() for damage in table.find_damage()]
    if found:
        raise explain_damage(found, catalog.table(found[0].table).uri) from cause
