"""Text from anywhere is shown without acting on the terminal, and JSON keeps its value."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from rlt_data.console import VisibleConsole, make_cell
from rlt_data.terminal import VisibleStderr, escape_json, make_visible, show_block, show_line

ACTING = {"Cc", "Cs", "Zl", "Zp"}
DIRECTIONS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("\x1b]52;c;aGk=\x07", r"\x1b]52;c;aGk=\x07"),
        ("\x9b2J \x7f \x85", r"\x9b2J \x7f \x85"),
        ("\u202eabc\u2066", r"\u202eabc\u2066"),
        ("pass\u200bword\ufeff", r"pass\u200bword\ufeff"),
        ("a\u200db", r"a\u200db"),
        ("\U000e0041", r"\U000e0041"),
        ("\udcff", r"\udcff"),
        ("a\r\nb\tc", "a\\r\nb\tc"),
        ("é 数 \\x1b \U0001f469\u200d\U0001f467 \u0645\u06cc\u200c\u062e", None),
    ],
)
def test_what_acts_on_a_terminal_is_shown_as_text_and_the_rest_stays(text: str, shown: str | None):
    assert make_visible(text) == (text if shown is None else shown)


@given(ANY_TEXT)
def test_no_control_character_is_left(text: str):
    left = {c for c in show_line(text) if unicodedata.category(c) in ACTING or c in DIRECTIONS}
    assert left == set()
    assert show_line(show_line(text)) == show_line(text)
    show_line(text).encode()


@given(ANY_TEXT)
def test_json_keeps_its_value_and_acts_on_nothing(text: str):
    written = escape_json(json.dumps({text: [text]}, ensure_ascii=False))
    assert json.loads(written) == {text: [text]}
    assert show_line(written) == written


def test_lines_of_data_are_indented():
    assert show_block("what\n  do:    this") == "what\n    do:    this"


def test_a_console_shows_text_of_any_kind_and_writes_its_own_codes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = VisibleConsole(width=80)
    with console.capture() as capture:
        console.print("[bold]\x1b[35mx", Text("\u202ey", style="bold"), make_cell("a\nb"))
        console.print(Text.from_ansi("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\"))
    assert capture.get() == "[bold]\\x1b[35mx \x1b[1m\\u202ey\x1b[0m a\\nb\nlink\n"


def test_stderr_shows_what_libraries_print_and_lets_rich_and_bars_pass():
    written = io.BytesIO()
    stream = VisibleStderr(io.BufferedWriter(written), "utf-8")  # type: ignore[arg-type]
    print("warning: \x1b[31m\x9b", file=stream)
    stream.write("\r50%")
    stream.write("\n\x1b[A")
    Console(file=stream, force_terminal=True, color_system="standard", _environ={}).print(Text("x", "bold"))
    stream.flush()
    assert written.getvalue().decode() == "warning: \\x1b[31m\\x9b\n\r50%\n\x1b[A\x1b[1mx\x1b[0m\n"
