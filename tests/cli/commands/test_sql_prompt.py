"""The interactive prompt, driven through a terminal that is made for the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from rlt_data.lake import Lake, QueryStream
from rlt_data_cli.commands.sql_prompt import Prompt, SqlCompleter, list_columns, list_words, open_prompt


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    with create_pipe_input() as typed, create_app_session(input=typed, output=DummyOutput()):
        yield typed


def talk(lake: Lake, keyboard: PipeInput, history: Path, *lines: str) -> None:
    keyboard.send_text("".join(f"{line}\r" for line in lines))
    open_prompt(lake, "table", allow_files=False, history=history)


def test_queries_of_several_lines_errors_and_leaving(
    lake: Lake, keyboard: PipeInput, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    lines = ("select 6 * 7", "as answer;", "selct 1;", "drop table questions;", "\\q")
    talk(lake, keyboard, tmp_path / "history", *lines)
    shown = capsys.readouterr().out
    assert "answer" in shown
    assert "42" in shown
    assert "syntax error" in shown
    assert "refused" in shown
    assert "6 * 7" in (tmp_path / "history").read_text(encoding="utf-8")


class InterruptedLake(Lake):
    """A lake whose user presses Ctrl-C during the first query."""

    def stream_sql(self, query: str, **options: Any) -> AbstractContextManager[QueryStream]:
        if "endless" in query:
            raise KeyboardInterrupt
        return super().stream_sql(query, **options)


def test_control_c_ends_a_query_and_not_the_session(
    keyboard: PipeInput, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    lake = InterruptedLake(tmp_path / "lake")
    talk(lake, keyboard, tmp_path / "history", "select 'endless';", "select 6 * 7 as answer;", "\\q")
    shown = capsys.readouterr().out
    assert "interrupted" in shown
    assert "42" in shown


def test_control_d_quits(lake: Lake, keyboard: PipeInput, tmp_path: Path):
    keyboard.send_text("\x04")
    open_prompt(lake, "table", allow_files=False, history=tmp_path / "history")


def test_commands_describe_tables_and_change_the_format(lake: Lake, capsys: pytest.CaptureFixture[str]):
    prompt = Prompt(lake, "table", allow_files=False)
    listed = prompt.handle("\\d") or ""
    assert {"token_scores", "evaluation_lineage"} <= set(listed.split())
    assert not [word for word in listed.split() if word.startswith("_")]
    assert "step" in (prompt.handle("\\d metrics") or "")
    assert prompt.handle("\\f json") == ""
    assert prompt.handle("select 1 as n;") == ""
    assert capsys.readouterr().out == '[\n{"n": 1}\n]\n'
    assert "\\q" in (prompt.handle("\\nonsense") or "")
    assert prompt.handle("\\q") is None


def test_completion_offers_columns_of_the_named_table_before_others(lake: Lake):
    completer = SqlCompleter(list_columns(lake), list_words(lake))
    found = [
        found.text
        for found in completer.get_completions(Document("select * from scores where rew"), CompleteEvent())
    ]
    assert found[0] == "reward"
    assert "rewards" in found
    words = [found.text for found in completer.get_completions(Document("sel"), CompleteEvent())]
    assert "SELECT" in words
    assert list(completer.get_completions(Document("select "), CompleteEvent())) == []


def test_cells_aliases_and_errors_do_not_act_on_the_terminal(lake: Lake, capsys: pytest.CaptureFixture[str]):
    lines = (
        'select chr(27) || chr(8238) as "a\x9b", chr(7) as bell;',
        "select error(chr(27) || ']0;x');",
        'select * from "q\u202e";',
        "\\d \x9b",
    )
    prompt = Prompt(lake, "table", allow_files=False)
    for line in lines:
        print(prompt.handle(line))
    shown = capsys.readouterr().out
    for acting in ("\x1b", "\x07", "\x9b", "\u202e"):
        assert acting not in shown
    assert r"\x1b\u202e" in shown
    assert r"\x1b]0;x" in shown
    assert r"q\u202e" in shown
