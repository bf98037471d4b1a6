"""The interactive prompt of `rlt-data sql`, with history, completion and commands that begin with \\."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer

from rlt_data.errors import RltDataError
from rlt_data.lake.sql.views import DERIVED_VIEWS
from rlt_data.terminal import print_drawn, print_text, show_line

from ..failures import show_error
from ..results import Format, render_table, write_result

if TYPE_CHECKING:
    from rlt_data.lake import Lake, QueryLimits

HELP = """\\d          list the tables and views
\\d TABLE    describe one
\\f FORMAT   write results as table, csv or json
\\x          show long cells in full, or shorten them again
\\h          this help
\\q          quit (so does Ctrl-D)
A query ends with ; and may span several lines. "traces@3" is version 3 of the table traces."""


class SqlCompleter(Completer):
    """Completes tables, columns and SQL words, with columns of the tables in the query first."""

    def __init__(self, columns: dict[str, list[str]], words: list[str]) -> None:
        self.columns = columns
        self.words = words

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield the completions of the word before the cursor."""
        word = document.get_word_before_cursor()
        if not word:
            return
        text = document.text.lower()
        named = [table for table in self.columns if table in text]
        near = [(column, table) for table in named for column in self.columns[table]]
        far = [
            (column, table) for table in self.columns if table not in named for column in self.columns[table]
        ]
        tables = [(table, "table") for table in self.columns]
        seen = set()
        for name, meta in (*near, *tables, *((keyword, "") for keyword in self.words), *far):
            if name.lower().startswith(word.lower()) and name not in seen:
                seen.add(name)
                yield Completion(name, start_position=-len(word), display=show_line(name), display_meta=meta)


class Prompt:
    """One interactive session over one lake."""

    def __init__(
        self,
        lake: Lake,
        format: Format,
        *,
        allow_files: bool,
        limits: QueryLimits | None = None,
        incomplete: bool = False,
    ) -> None:
        self.lake = lake
        self.format = format
        self.allow_files = allow_files
        self.limits = limits
        self.incomplete = incomplete
        self.full = False

    def handle(self, text: str) -> str | None:
        """Handle one input; return the text to print, or None to quit."""
        text = text.strip().rstrip(";").strip()
        try:
            if text.startswith("\\"):
                return self._handle_command(*text[1:].split(maxsplit=1))
            if not text:
                return ""
            started = time.monotonic()
            with self.lake.stream_sql(
                text, allow_files=self.allow_files, limits=self.limits, incomplete=self.incomplete
            ) as result:
                if self.format != "table":
                    write_result(result, self.format)
                    return ""
                shown = render_table(result, full=self.full)
            return f"{shown}{time.monotonic() - started:.2f} s\n"
        except RltDataError as error:
            return f"error: {show_error(error)}\n"

    def _handle_command(self, name: str = "", argument: str = "") -> str | None:
        if name in ("q", "quit"):
            return None
        if name == "d":
            query = (
                f'DESCRIBE "{argument}"'
                if argument
                else "SELECT name FROM (SHOW TABLES) WHERE name[1] <> '_' ORDER BY name"
            )
            with self.lake.stream_sql(query, limits=self.limits, incomplete=True) as result:
                return render_table(result, rows=0)
        if name == "f" and argument in get_args(Format) and argument != "parquet":
            self.format = cast(Format, argument)
            return ""
        if name == "x":
            self.full = not self.full
            return f"long cells are {'shown in full' if self.full else 'shortened'}\n"
        return HELP + "\n"


def open_prompt(
    lake: Lake,
    format: Format,
    *,
    allow_files: bool,
    limits: QueryLimits | None = None,
    incomplete: bool = False,
    history: Path | None = None,
) -> None:
    """Read queries until the user quits; an error is printed and does not end the session."""
    prompt = Prompt(lake, format, allow_files=allow_files, limits=limits, incomplete=incomplete)
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(history or find_history_file())),
        completer=SqlCompleter(list_columns(lake), list_words(lake)),
        complete_while_typing=True,
        lexer=PygmentsLexer(SqlLexer),
    )
    print_text(f"lake {lake.uri}; \\h for help, \\q to leave")
    lines: list[str] = []
    while True:
        try:
            line = session.prompt("   ...> " if lines else "lake> ")
        except KeyboardInterrupt:
            lines = []
            continue
        except EOFError:
            return
        lines.append(line)
        text = "\n".join(lines).strip()
        if text and not text.startswith("\\") and not text.endswith(";"):
            continue
        lines = []
        try:
            shown = prompt.handle(text)
        except KeyboardInterrupt:
            shown = "interrupted\n"
        if shown is None:
            return
        print_drawn(shown)


def list_columns(lake: Lake) -> dict[str, list[str]]:
    """List the columns of every table and view, for completion."""
    columns: dict[str, list[str]] = {table.name: table.schema.arrow.names for table in lake.tables()}
    for view in DERIVED_VIEWS:
        columns[view] = lake.sql(f"SELECT * FROM {view} LIMIT 0", incomplete=True).column_names
    return columns


def list_words(lake: Lake) -> list[str]:
    """List DuckDB's keywords and functions, for completion."""
    query = """
        SELECT upper(keyword_name) AS word FROM duckdb_keywords()
        UNION
        SELECT function_name FROM duckdb_functions()
        WHERE function_type IN ('scalar', 'aggregate') AND regexp_full_match(function_name, '[a-z][a-z0-9_]*')
        ORDER BY word
    """
    words: list[str] = lake.sql(query).column("word").to_pylist()
    return words


def find_history_file() -> Path:
    """Return the path of the prompt's history, and make its folder."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    folder = Path(state).expanduser() / "rlt-data"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "sql_history"
