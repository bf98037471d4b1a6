"""SQL over a lake: DuckDB reads the Parquet files of each table's version, and nothing else.

A local table is a view over `read_parquet` with the explicit file list of its version, so that no extension
is needed or downloaded; a remote table is a view over an Arrow dataset of the Delta table. Two measures make
queries safe: only statements that read are accepted (`check_statement`), and the connection's access to
external files is disabled except for the listed ones, with its configuration locked.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

import duckdb
import pyarrow as pa

from rlt_data.atomic_files import check_utf8
from rlt_data.errors import LakeError
from rlt_data.lake.catalog import Catalog
from rlt_data.lake.integrity.reading import check_used_files
from rlt_data.lake.integrity.rows import find_losses, find_lost_entries
from rlt_data.lake.runs import read_run_order
from rlt_data.lake.sql.execution import (
    BATCH_ROWS,
    Execution,
    QueryLimits,
    QueryStream,
    explain_out_of_memory,
    is_out_of_memory,
)
from rlt_data.lake.sql.views import DERIVED_VIEWS, VIEW_SOURCES, RunOrder, quote_text, write_view
from rlt_data.lake.tables.damage import Damage
from rlt_data.lake.tables.signature import is_uniform
from rlt_data.lake.tables.table import NO_VERSION, Table
from rlt_data.schemas import TABLES, TableSchema
from rlt_data.suggestions import suggest_name

_VERSIONED = re.compile(r'"(\w+)@(\d+)"')
_CATALOGUE = re.compile(r"\b(show|information_schema|duckdb_\w+|query|query_table|pg_\w+|sqlite_\w+)\b", re.I)
# Table functions whose arguments name tables; they may be computed.
_NAMING_FUNCTIONS = re.compile(r"\b(query|query_table)\b", re.I)
_EXPLAIN = re.compile(r"\s*explain\s+(\([^)]*\)\s*)?(analyze\s+)?", re.I)
_IDENTIFIER = re.compile(r'\w+|"[^"]*"')
_TYPES = {
    "string": "VARCHAR",
    "bool": "BOOLEAN",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
}
# Errors of the query, not of a file: in these the files are not read again.
_QUERY_ERRORS = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.DataError,
    duckdb.InterruptException,
    duckdb.ParserException,
    duckdb.SyntaxException,
)
_VALUE_ERRORS = ("Conversion Error", "Out of Range Error", "Invalid Error: Conversion Error", "INTERRUPT")
_READ_ONLY = "use a statement that reads: SELECT, FROM, WITH, VALUES, EXPLAIN, DESCRIBE, SHOW or SUMMARIZE"


def run_query(
    catalog: Catalog,
    query: str,
    *,
    versions: Mapping[str, int] | None = None,
    allow_files: bool = False,
    limits: QueryLimits | None = None,
    incomplete: bool = False,
) -> pa.Table:
    """Answer one statement as Arrow; see `Lake.sql`. Raises `LakeError` with DuckDB's message."""
    with (
        _open_query(catalog, query, versions, limits, allow_files=allow_files, incomplete=incomplete) as (
            connection,
            execution,
        ),
        _explain_errors(catalog, connection, query),
    ):
        answer = execution.run(lambda: connection.sql(query).to_arrow_table())
        return answer.rename_columns(_number_repeated_names(answer.column_names))


@contextmanager
def stream_query(
    catalog: Catalog,
    query: str,
    *,
    versions: Mapping[str, int] | None = None,
    allow_files: bool = False,
    limits: QueryLimits | None = None,
    incomplete: bool = False,
) -> Iterator[QueryStream]:
    """Answer one statement batch by batch; see `Lake.stream_sql`. Raises as `run_query` does."""
    with _open_query(catalog, query, versions, limits, allow_files=allow_files, incomplete=incomplete) as (
        connection,
        execution,
    ):
        with _explain_errors(catalog, connection, query):
            reader = execution.run(lambda: connection.sql(query).to_arrow_reader(BATCH_ROWS))
        names = _number_repeated_names(reader.schema.names)
        schema = pa.schema([field.with_name(name) for field, name in zip(reader.schema, names, strict=True)])

        def fetch() -> pa.RecordBatch | None:
            try:
                return reader.read_next_batch()
            except StopIteration:  # It cannot be raised through a future.
                return None

        def iterate() -> Iterator[pa.RecordBatch]:
            with _explain_errors(catalog, connection, query):
                while (batch := execution.run(fetch)) is not None:
                    yield batch.rename_columns(names)

        try:
            yield QueryStream(schema, iterate())
        finally:
            reader.close()


@contextmanager
def _open_query(
    catalog: Catalog,
    query: str,
    versions: Mapping[str, int] | None,
    limits: QueryLimits | None,
    *,
    allow_files: bool,
    incomplete: bool,
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Execution]]:
    """Open a connection that sees the tables which one checked statement may name."""
    check_statement(query, allow_files=allow_files)
    limits = limits or QueryLimits()
    check_utf8(tempfile.gettempdir(), "the temporary folder")  # DuckDB crashes otherwise.
    with (
        # A folder with a fixed name could belong to another user of the machine.
        tempfile.TemporaryDirectory(prefix="rlt-data-sql-") as spill,
        duckdb.connect(":memory:") as connection,
        closing(Execution(connection, limits)) as execution,
    ):
        with _explain_errors(catalog, connection, query):
            files = _open_views(connection, catalog, query, versions or {})
            if not incomplete:
                _check_losses(catalog, query, versions or {})
            limits.apply(connection, spill)
            _lock_connection(connection, files, allow_files=allow_files)
        yield connection, execution


@contextmanager
def _explain_errors(catalog: Catalog, connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[None]:
    """Convert the errors of DuckDB, and those that Arrow passes on while rows are fetched."""
    try:
        yield
    except duckdb.Error as error:
        if not isinstance(error, _QUERY_ERRORS) and not is_out_of_memory(error):
            check_used_files(catalog, error)
        raise _explain_error(error, connection, query) from error
    except (pa.ArrowException, OSError) as error:
        if is_out_of_memory(error):
            raise explain_out_of_memory(error) from error
        if not str(error).startswith(_VALUE_ERRORS):
            check_used_files(catalog, error)
        raise LakeError(str(error), where="the query") from error


def find_named_tables(predicates: Iterable[str]) -> list[str]:
    """Find the tables that SQL predicates name without a version, including those behind views."""
    found: set[str] = set()
    for predicate in predicates:
        for position, kind in duckdb.tokenize(predicate):
            word = _IDENTIFIER.match(predicate, position) if kind == duckdb.token_type.identifier else None
            if word is not None:
                name = word[0].strip('"').lower()
                found |= {name, *VIEW_SOURCES.get(name, ())}
    return [name for name in TABLES if name in found]


def _number_repeated_names(given: Sequence[str]) -> list[str]:
    """Number repeated column names (`run_id`, `run_id_1`): most tools need distinct ones."""
    taken = set(given)
    names: list[str] = []
    for name in given:
        unique, number = name, 0
        while unique in names or (number and unique in taken):
            number += 1
            unique = f"{name}_{number}"
        names.append(unique)
    return names


def check_statement(query: str, *, allow_files: bool = False) -> None:
    """Raise `LakeError` unless `query` is one statement that only reads (or may use files, if allowed)."""
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise LakeError(str(error), where="the query") from error
    if not statements:
        raise LakeError("the query is empty", where="the query", remedy=_READ_ONLY)
    if len(statements) > 1:
        raise LakeError(
            f"the query has {len(statements)} statements; only one is accepted",
            where="the query",
            remedy="run them one by one",
        )
    kind, text = statements[0].type, statements[0].query
    if kind == duckdb.StatementType.EXPLAIN:
        inner, found = _EXPLAIN.subn("", text, count=1)
        if found and inner.strip():
            check_statement(inner, allow_files=allow_files)
            return
    allowed = {duckdb.StatementType.SELECT}
    if allow_files:
        allowed |= {duckdb.StatementType.COPY, duckdb.StatementType.MULTI}
    if kind == duckdb.StatementType.MULTI and not allow_files:
        raise LakeError(
            "DuckDB expands this statement into several",
            where="the query",
            remedy="list the values of PIVOT: PIVOT table ON column IN ('a', 'b') USING ...",
        )
    if kind not in allowed:
        raise LakeError(f"{kind.name} statements are refused", where="the query", remedy=_READ_ONLY)


def check_predicate(predicate: str) -> None:
    """Raise `LakeError` unless `predicate` is one SQL expression, which cannot leave its parentheses.

    What parses both inside parentheses and without them is one expression: a predicate that closes them
    fails without them, and one that goes on after the expression fails inside.
    """
    for query in (f"SELECT 1 WHERE (\n{predicate}\n)", f"SELECT 1 WHERE\n{predicate}\n"):
        try:
            statements = duckdb.extract_statements(query)
        except duckdb.Error as error:
            raise LakeError(f"it is not one SQL expression: {error}", where=predicate) from error
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise LakeError("it is not one SQL expression", where=predicate)


def _open_views(
    connection: duckdb.DuckDBPyConnection, catalog: Catalog, query: str, versions: Mapping[str, int]
) -> list[str]:
    """Create a view of each table that the query may name, and return the files behind them."""
    pinned = {catalog.table(name).name: version for name, version in versions.items()}
    connection.execute("SET TimeZone = 'UTC'")
    names = _find_names(query)
    files: list[str] = []
    for name in names:
        files += _create_view(connection, catalog.table(name), pinned.get(name), name)
    for name, number in sorted(set(_VERSIONED.findall(query))):
        if name not in TABLES:
            continue
        table = catalog.table(name)
        if int(number) > table.version() and f"{name}@{number}" not in _list_table_names(connection, query):
            continue  # It only looks like a version: it is part of a string.
        files += _create_view(connection, table, int(number), f"{name}@{number}")
    words = {word.lower() for word in re.findall(r"\w+", query)}
    for view in DERIVED_VIEWS:
        named = view in words or _CATALOGUE.search(query)
        if named and all(source in names for source in VIEW_SOURCES[view]):
            connection.execute(write_view(view, lambda: _read_run_order(catalog)))
    return files


def _read_run_order(catalog: Catalog) -> RunOrder:
    """Read the order of the runs; where their log is damaged, and `incomplete` allows it, times decide."""
    try:
        return read_run_order(catalog)
    except LakeError:
        return []


def find_read_tables(query: str) -> list[str]:
    """Find the tables that a query reads at their newest version, also behind views.

    Where DuckDB cannot find out, as in a join with USING, these are all tables that it names; where functions
    name the tables, these are all of the lake.
    """
    if _NAMING_FUNCTIONS.search(query):
        return list(TABLES)
    with duckdb.connect(":memory:") as connection:
        try:
            words = {name.lower() for name in connection.get_table_names(query)}
        except duckdb.Error:
            return find_named_tables([query])
    for view in words & VIEW_SOURCES.keys():
        words |= set(VIEW_SOURCES[view])
    return [name for name in TABLES if name in words]


def _check_losses(catalog: Catalog, query: str, versions: Mapping[str, int]) -> None:
    """Raise `LakeError` where rows of a table are gone from a version that the query reads."""
    found = find_query_losses(catalog, query, versions)
    if found:
        others = f", and {len(found) - 1} more losses" if len(found) > 1 else ""
        whose = f" that run {found[0].run_id} ({found[0].stage}) wrote" if found[0].run_id else ""
        raise LakeError(
            f"table {found[0].table} {found[0].what}{whose}{others}",
            where=catalog.table(found[0].table).uri,
            remedy="`rlt-data verify` shows what is missing; to query what is left, add --incomplete "
            "(in Python incomplete=True)",
        )


def find_query_losses(
    catalog: Catalog, query: str, versions: Mapping[str, int] | None = None
) -> list[Damage]:
    """Find what the tables have lost that a query reads, under its pinned `versions`.

    Of the newest version these are rows that runs recorded, of an older one the entries of its log.
    Raises `LakeError` where a table cannot be read.
    """
    read = find_read_tables(query)
    pinned = {(name, version) for name, version in (versions or {}).items() if name in read}
    pinned |= {(name, int(number)) for name, number in _find_versioned(query)}
    newest = [name for name in read if name not in (versions or {})]
    found = []
    for name, version in sorted(pinned):
        table = catalog.table(name)
        if version == table.version():
            newest.append(name)
        elif NO_VERSION < version < table.version():
            found += find_lost_entries(table, version)
    return find_losses(catalog, list(dict.fromkeys(newest))) + found


def _find_versioned(query: str) -> set[tuple[str, str]]:
    """Find the tables that a query names with a version, in strings too where DuckDB cannot tell."""
    found = {(name, number) for name, number in _VERSIONED.findall(query) if name in TABLES}
    if not found or _NAMING_FUNCTIONS.search(query):
        return found
    with duckdb.connect(":memory:") as connection:
        named = _list_table_names(connection, query)
    return {(name, number) for name, number in found if not named or f"{name}@{number}" in named}


def _find_names(query: str) -> list[str]:
    """Return the tables that a query may name; all of them if it reads DuckDB's catalogue."""
    if _CATALOGUE.search(query):
        return list(TABLES)
    words = {word.lower() for word in re.findall(r"\w+", query)}
    for view, sources in VIEW_SOURCES.items():
        if view in words:
            words |= set(sources)
    return [name for name in TABLES if name in words]


def _create_view(
    connection: duckdb.DuckDBPyConnection, table: Table, version: int | None, view: str
) -> list[str]:
    delta = table.open_version(version)
    files = table.list_files(delta)
    sql = _select_nothing(table.schema)
    if delta is not None and files:
        uniform = is_uniform(delta, table.schema)
        names = ", ".join(quote_name(column.name) for column in table.schema.columns)
        if table.local:
            listed = ", ".join(quote_text(file) for file in files)
            stored = f"FROM read_parquet([{listed}], union_by_name = {str(not uniform).lower()})"
        else:
            connection.register(f"_{view}", delta.to_pyarrow_dataset())
            stored = f"FROM {quote_name(f'_{view}')}"
        # Files of an older lake lack columns: the empty part supplies them, as nulls.
        sql = f"SELECT {names} {stored}" if uniform else f"{sql} UNION ALL BY NAME SELECT * {stored}"
    if table.name == "runs":
        connection.execute(f"CREATE VIEW {quote_name(view.replace('runs', 'run_events', 1))} AS {sql}")
        newest = "row_number() OVER (PARTITION BY run_id ORDER BY sequence DESC) = 1"
        sql = f"SELECT * FROM ({sql}) QUALIFY {newest}"
    connection.execute(f"CREATE VIEW {quote_name(view)} AS {sql}")
    return files if table.local else []


def _select_nothing(schema: TableSchema) -> str:
    """Build a query that has no rows, and the columns and types of a table."""
    columns = (f"NULL::{_name_type(c.type)} AS {quote_name(c.name)}" for c in schema.columns)
    return f"SELECT {', '.join(columns)} WHERE false"


def _name_type(type_: pa.DataType) -> str:
    """Name the DuckDB type of an Arrow type that the schemas use."""
    if pa.types.is_list(type_):
        return f"{_name_type(type_.value_type)}[]"
    if pa.types.is_struct(type_):
        return "STRUCT(" + ", ".join(f"{quote_name(f.name)} {_name_type(f.type)}" for f in type_) + ")"
    return _TYPES[str(type_)]


def _lock_connection(
    connection: duckdb.DuckDBPyConnection, files: Iterable[str], *, allow_files: bool
) -> None:
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute("SET enable_progress_bar = false")
    if not allow_files:
        listed = ", ".join(quote_text(file) for file in files)
        connection.execute(f"SET allowed_paths = [{listed}]")
        connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _list_table_names(connection: duckdb.DuckDBPyConnection, query: str) -> set[str]:
    try:
        return set(connection.get_table_names(query))
    except duckdb.Error:
        return set()


def _explain_error(error: duckdb.Error, connection: duckdb.DuckDBPyConnection, query: str) -> LakeError:
    """Convert a DuckDB error to a `LakeError`, with the nearest name for a table that does not exist."""
    if is_out_of_memory(error):
        return explain_out_of_memory(error)
    names = [*TABLES, *DERIVED_VIEWS, "run_events"]
    if isinstance(error, duckdb.CatalogException):
        for name in sorted(_list_table_names(connection, query)):
            plain = name.split("@")[0]
            if plain not in names:
                remedy = suggest_name(plain, names)
                return LakeError(f"there is no table {name!r}", where="the query", remedy=remedy)
    return LakeError(str(error), where="the query")


def quote_name(name: str) -> str:
    """Quote an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
