"""TOML files validated against pydantic models, with errors that name file, line and the nearest valid key.

`tomllib` gives values without their lines, and pydantic gives key paths without a file; here the two
are joined. A key path is a tuple such as `("generate", "temperature")`; an integer in it is an index
into an array of tables.
"""

from rlt_data.toml.documents import (
    TomlDocument,
    check_depth,
    compose_documents,
    load_document,
    parse_document,
    parse_typed_value,
)
from rlt_data.toml.lines import KeyPath
from rlt_data.toml.validate import validate_data, validate_documents

__all__ = [
    "KeyPath",
    "TomlDocument",
    "check_depth",
    "compose_documents",
    "load_document",
    "parse_document",
    "parse_typed_value",
    "validate_data",
    "validate_documents",
]
