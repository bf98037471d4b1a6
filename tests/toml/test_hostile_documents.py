"""Documents that are endless, huge, deep or wrong from end to end: refused in plain words, at once."""

from __future__ import annotations

import codecs
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import QuickProgram

from rlt_data.errors import UsageError
from rlt_data.recipe.load import load_recipe
from rlt_data.recipe.overrides import parse_override
from rlt_data.toml import load_document, parse_document, parse_typed_value
from rlt_data.toml.documents import MOST_BYTES, MOST_LEVELS


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/full", "/"])
def test_what_is_neither_file_nor_pipe_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="neither a file nor a pipe"):
        load_document(Path(path))


def test_a_recipe_without_end_takes_no_memory(tmp_path: Path) -> None:
    limited = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30));"
    program = f"{limited} from rlt_data_cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "run", "/dev/zero"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "neither a file nor a pipe" in done.stderr


def test_a_pipe_is_read_up_to_the_limit() -> None:
    def write(content: bytes, writing: int) -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as stream:
            stream.write(content)

    for content, refused in ((b"a = 1\n", False), (b"# " + b"x" * MOST_BYTES, True)):
        reading, writing = os.pipe()
        path = Path(f"/dev/fd/{reading}")
        writer = threading.Thread(target=write, args=(content, writing))
        writer.start()
        if refused:
            with pytest.raises(UsageError, match="larger than 4 MiB"):
                load_document(path)
        else:
            assert load_document(path).data == {"a": 1}
        os.close(reading)
        writer.join()


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe.toml"
    os.mkfifo(path)
    with pytest.raises(UsageError, match="a named pipe") as raised:
        load_document(path)
    assert raised.value.where == str(path)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(codecs.BOM_UTF8 + b"a = 1\r\nb = 2\r\n")
    document = load_document(path)
    assert document.data == {"a": 1, "b": 2}
    assert document.find_line(("b",)) == 2


DEEP = 50_000


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * DEEP,
        "a = " + "[" * DEEP + "]" * DEEP,
        "a = " + "{a = " * DEEP + "1" + "}" * DEEP,
        ".".join("a" * DEEP) + " = 1",
        ".".join(['"a"'] * DEEP) + " = 1",
        "[" + " . ".join("a" * DEEP) + "]",
        ".".join("a" * (MOST_LEVELS + 1)) + " = 1",
        "a = " + "[" * (MOST_LEVELS + 1) + "]" * (MOST_LEVELS + 1),
    ],
)
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="nested more than 50 deep"):
        parse_document(text, "deep.toml")


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(UsageError, match="an integer has 5,000 digits, and at most 4,300 are read") as raised:
        parse_document("a = " + "9" * 5_000, "big.toml")
    assert "sys." not in raised.value.what


def test_a_value_on_the_command_line_may_be_anything() -> None:
    for text in ("[" * DEEP, "9" * 5_000, ".".join("a" * DEEP)):
        assert parse_typed_value(text) == text
    with pytest.raises(UsageError, match="more than 50 parts"):
        parse_override(".".join("a" * DEEP) + "=1")


def test_hundreds_of_thousands_of_wrong_keys_are_counted_and_a_few_are_named(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("".join(f"k{number} = 1\n" for number in range(300_000)))
    with pytest.raises(UsageError) as raised:
        load_recipe([path])
    assert raised.value.where == f"{path}:1"
    assert "and 299994 more" in raised.value.what
    assert len(str(raised.value)) < 2_000


def test_a_wrong_key_of_a_million_characters_is_shortened(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("k" * 1_000_000 + " = 1\nlake = [" + "1, " * 100_000 + "]\n")
    with pytest.raises(UsageError) as raised:
        load_recipe([path])
    assert len(str(raised.value)) < 2_000


@pytest.mark.parametrize("text", ["a = " + "[" * DEEP, ".".join("a" * DEEP) + " = 1"])
def test_the_command_line_reports_no_defect(quick: QuickProgram, text: str) -> None:
    Path(quick.folder / "deep.toml").write_text(text)
    message = quick.fail(2, "run", "deep.toml", "--dry-run")
    assert "nested more than 50 deep" in message
    assert "defect" not in message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("first\nsecond", "first\nsecond"),
        ("8\nsecond = 3", "8\nsecond = 3"),
        ("true\n[section]\nkey = 1", "true\n[section]\nkey = 1"),
        ("8\n# nine", "8\n# nine"),
        ("8 # nine", "8 # nine"),
        ('"a" # b', '"a" # b'),
        ("[1, # one\n 2]", [1, 2]),
        ('"""a\nb # c"""', "a\nb # c"),
        ("'# not a comment'", "# not a comment"),
        ("8", 8),
        (" 8 ", 8),
    ],
)
def test_every_line_of_a_value_is_kept(text: str, value: object) -> None:
    assert parse_typed_value(text) == value
    assert parse_override(f"a.b={text}").data == {"a": {"b": value}}
