"""Convert rows to the schema of a table: column order, types, absent nullable columns."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa

from rlt_data.errors import LakeError
from rlt_data.schemas import TableSchema
from rlt_data.suggestions import suggest_name

_KINDS = (
    (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    (pa.types.is_integer, pa.types.is_floating),
    (pa.types.is_boolean,),
    (pa.types.is_timestamp,),
    (pa.types.is_list, pa.types.is_large_list, pa.types.is_list_view, pa.types.is_fixed_size_list),
    (pa.types.is_struct,),
)


def conform_rows(rows: pa.Table | pl.DataFrame, schema: TableSchema, *, run_id: str) -> pa.Table:
    """Return `rows` with exactly the columns and types of `schema`.

    Absent nullable columns become null, and an absent `run_id` column is filled in. Types are cast where no
    value changes. Raises `LakeError` naming the column that is unknown, missing, null or of another type.
    """
    table = rows.to_arrow() if isinstance(rows, pl.DataFrame) else rows
    names = {column.name for column in schema.columns}
    for name in table.column_names:
        if name not in names:
            raise LakeError(
                f"table {schema.name} has no column {name!r}",
                where=f"{schema.name}.{name}",
                remedy=suggest_name(name, names),
            )
    columns = []
    for column in schema.columns:
        if column.name in table.column_names:
            values = _cast_column(table.column(column.name), column.type, f"{schema.name}.{column.name}")
        elif column.name == "run_id":
            values = pa.chunked_array([pa.repeat(pa.scalar(run_id, pa.string()), table.num_rows)])
        elif column.nullable:
            values = pa.chunked_array([pa.nulls(table.num_rows, column.type)])
        else:
            raise LakeError(
                f"the required column {column.name!r} is missing",
                where=f"{schema.name}.{column.name}",
                remedy=column.about,
            )
        if not column.nullable and values.null_count:
            raise LakeError(
                f"column {column.name!r} must not be null, but {values.null_count} of its values are",
                where=f"{schema.name}.{column.name}",
                remedy=column.about,
            )
        columns.append(values)
    return pa.Table.from_arrays(columns, schema=schema.arrow)


def _cast_column(values: pa.ChunkedArray, target: pa.DataType, where: str) -> pa.ChunkedArray:
    if values.type.equals(target):
        return values
    reason = f"convert the values to {target}"
    if _is_same_kind(values.type, target):
        try:
            return values.cast(target)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            reason = str(error).splitlines()[0]
    raise LakeError(
        f"values of type {values.type} do not fit a column of type {target}", where=where, remedy=reason
    )


def _is_same_kind(given: pa.DataType, target: pa.DataType) -> bool:
    """Whether a cast changes only width or layout: text stays text, numbers stay numbers, and so on."""
    if pa.types.is_null(given):
        return True
    if pa.types.is_dictionary(given):
        return _is_same_kind(given.value_type, target)
    return any(all(any(is_kind(type_) for is_kind in kind) for type_ in (given, target)) for kind in _KINDS)


def build_empty_frame(schema: TableSchema) -> pl.DataFrame:
    """Return an empty frame with the columns and types of `schema`."""
    frame = pl.from_arrow(schema.arrow.empty_table())
    assert isinstance(frame, pl.DataFrame)
    return frame


def build_rows(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Build a table of the columns that occur in `rows`; those of `schema` get its types, others are null.

    Raises `LakeError` if a value does not fit its type.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    fields = [schema.field(name).with_nullable(True) for name in names if name in schema.names]
    unknown = [name for name in names if name not in schema.names]
    try:
        table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise LakeError(f"rows do not fit the table: {error}", where="columns " + ", ".join(names)) from error
    for name in unknown:
        table = table.append_column(name, pa.nulls(len(rows)))
    return table
