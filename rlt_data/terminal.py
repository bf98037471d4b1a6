"""Printing for people: control characters in what is printed are shown as text and never reach the terminal.

Text from data, paths, servers and models may hold escape sequences that colour, move, hide or replace what
a terminal shows, or set its clipboard. Whatever is printed for people goes through `make_visible`: plain
text by `print_text` and `print_note`, tables and bars by `rlt_data.console`. JSON goes through `escape_json`.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import IO

from rlt_data.errors import RltDataError

# Control characters (C0, DEL, C1), marks that reorder text or are invisible, line separators, tags, and
# halves of surrogate pairs.
_HIDDEN = (
    "\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff"
)
# Scripts and emoji join characters by U+200C and U+200D; elsewhere these hide.
_JOINER = r"(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f\u200c\u200d])"
_UNSAFE = re.compile(f"[\x00-\x1f{_HIDDEN}]|{_JOINER}")
# JSON escapes C0 by itself; its own line breaks stay.
_JSON_UNSAFE = re.compile(f"[{_HIDDEN}\u200c\u200d]")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
# How bars of libraries (tqdm) move between their lines.
_CURSOR_UP = re.compile(r"\n*(?:\x1b\[A)+")


def make_visible(text: str, *, keep: str = "\n\t") -> str:
    r"""Show control characters and invisible or reordering marks of `text` as escapes, such as `\x1b`.

    The characters in `keep` stay. Text without such characters is returned as it is.
    """

    def show(match: re.Match[str]) -> str:
        character = match[0]
        return character if character in keep else _SHORT.get(character) or _escape(character)

    return _UNSAFE.sub(show, text)


def show_line(text: object) -> str:
    """Show `text` on one line: line breaks and tabs as escapes too."""
    return make_visible(str(text), keep="")


def show_block(text: object, indent: str = "  ") -> str:
    """Show `text` with its line breaks, and indent every line after the first: none looks like ours."""
    return make_visible(str(text)).replace("\n", f"\n{indent}")


def escape_json(text: str) -> str:
    r"""Escape the same characters in JSON text as `\uXXXX`: its value stays the same."""
    return _JSON_UNSAFE.sub(lambda match: _escape_utf16(match[0]), text)


def print_text(text: str = "", *, end: str = "\n") -> None:
    """Print text for people on stdout."""
    print(make_visible(text), end=end)


def print_drawn(text: str) -> None:
    """Print on stdout what `rlt_data.console` drew, or JSON that was escaped: it is visible already."""
    print(text, end="")


@contextmanager
def exact_stdout() -> Iterator[IO[str]]:
    """Yield stdout for data: UTF-8 whatever the locale, and nothing shown as escapes."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper):
        yield stream
        return
    encoding, errors = stream.encoding, stream.errors
    stream.reconfigure(encoding="utf-8", errors="strict")
    try:
        yield stream
    finally:
        stream.reconfigure(encoding=encoding, errors=errors)


def print_note(text: str, *, end: str = "\n") -> bool:
    """Print text for people on stderr, and return whether it could be written."""
    try:
        # One write, so that lines of several threads do not mix.
        sys.stderr.write(make_visible(text) + end)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # Nobody reads stderr any more, or it is closed.
        return False
    return True


class StdoutClosedError(Exception):
    """Nobody reads stdout any more, as in `rlt-data sql ... | head`."""


class StdoutError(RltDataError):
    """Stdout cannot be written."""


class CheckedStdout(io.TextIOWrapper):
    """Stdout whose errors say that they are stdout's: `StdoutClosedError` and `StdoutError`."""

    def write(self, text: str) -> int:
        """Write `text`."""
        try:
            return super().write(text)
        except OSError as error:
            raise _explain_stdout(error) from error

    def flush(self) -> None:
        """Write out what is buffered."""
        try:
            super().flush()
        except OSError as error:
            raise _explain_stdout(error) from error


class VisibleStderr(io.TextIOWrapper):
    """Stderr that shows control characters of whatever is written to it, by libraries and warnings too.

    Only Rich writes control codes, to `rich_proxied_file`, which is the name by which Rich finds it.
    """

    def __init__(self, buffer: io.BufferedIOBase, encoding: str) -> None:
        super().__init__(buffer, encoding, errors="backslashreplace", line_buffering=True)  # type: ignore[arg-type]
        self.rich_proxied_file = SimpleNamespace(
            write=super().write, flush=self.flush, isatty=self.isatty, fileno=self.fileno, encoding=encoding
        )

    def write(self, text: str) -> int:
        """Write `text`, shown by `make_visible`; bars of libraries may return to the start of their line."""
        shown = text if _CURSOR_UP.fullmatch(text) else make_visible(text, keep="\n\r\t")
        super().write(shown)
        return len(text)


def _explain_stdout(error: OSError) -> Exception:
    if isinstance(error, BrokenPipeError):
        return StdoutClosedError()
    return StdoutError(
        f"stdout cannot be written: {error.strerror or error}", remedy="redirect it to where there is space"
    )


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escape_utf16(character: str) -> str:
    code = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{code[at : at + 2].hex()}" for at in range(0, len(code), 2))
