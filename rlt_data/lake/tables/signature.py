"""Signatures of schemas, and the check that a stored table has the columns that this program writes."""

from __future__ import annotations

import pyarrow as pa
from deltalake import DeltaTable

from rlt_data.errors import LakeError
from rlt_data.hashing import hash_content
from rlt_data.schemas import TableSchema

SIGNATURE_PROPERTY = "rlt_data.schema"


def sign_schema(schema: TableSchema) -> str:
    """Hash the names, types and nullability of a table's columns, in order."""
    return hash_content(*([c.name, str(c.type), c.nullable] for c in schema.columns))


def is_uniform(delta: DeltaTable, schema: TableSchema) -> bool:
    """Whether every file of the table was written with exactly the columns of `schema`."""
    return delta.metadata().configuration.get(SIGNATURE_PROPERTY) == sign_schema(schema)


def check_columns(delta: DeltaTable, schema: TableSchema) -> None:
    """Raise `LakeError` unless the stored columns are those of `schema`, in any order."""
    stored = {field.name: field.type for field in pa.schema(delta.schema())}
    expected = {column.name: column.type for column in schema.columns}
    differing = sorted(
        name
        for name in stored.keys() | expected.keys()
        if name not in stored or name not in expected or not _is_alike(stored[name], expected[name])
    )
    if differing:
        raise LakeError(
            f"table {schema.name} has other columns than this program writes",
            where=f"{delta.table_uri}: {', '.join(differing)}",
            remedy="use the version of rlt-data that wrote it, or a new lake",
        )


def _is_alike(one: pa.DataType, other: pa.DataType) -> bool:
    """Compare types except for the names of list elements, which differ between engines."""
    if pa.types.is_list(one) and pa.types.is_list(other):
        return _is_alike(one.value_type, other.value_type)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return one.num_fields == other.num_fields and all(
            a.name == b.name and _is_alike(a.type, b.type) for a, b in zip(one, other, strict=True)
        )
    return bool(one.equals(other))
