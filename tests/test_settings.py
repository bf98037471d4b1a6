"""Settings and TOML files: what is read, and how a mistake is named."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.errors import UsageError
from rlt_data.settings import Settings, find_settings_file, load_settings
from rlt_data.toml import (
    compose_documents,
    load_document,
    parse_document,
    validate_data,
    validate_documents,
)


def write(directory: Path, text: str) -> Path:
    path = directory / "rlt-data.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_settings_are_found_upward_and_paths_are_relative_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'lake = "data/lake"\n[models.mine]\nmodel = "./weights"\n[models.other]\nmodel = "a/b"\n'
    path = write(tmp_path, text)
    inner = tmp_path / "some" / "where"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    settings = load_settings()
    assert settings.path == path.resolve()
    assert settings.lake_uri == str(tmp_path / "data/lake")
    assert settings.resolve_path(settings.models["mine"].model) == str(tmp_path / "weights")
    assert settings.resolve_path(settings.models["other"].model) == "a/b"
    assert find_settings_file(inner) == path


def test_no_settings_file_is_empty_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("text", "line", "what", "remedy"),
    [
        ('lake = "x"\n\n[model.a]\nmodel = "b"\n', 3, "unknown key 'model'", "did you mean 'models'?"),
        ("[models.a]\nmodl = 'b'\nmodel = 'c'\n", 2, "unknown key 'models.a.modl'", "did you mean 'model'?"),
        ("[models]\na = { modle = 'b', model = 'c' }\n", 2, "unknown key 'models.a.modle'", "'model'?"),
        ("[models.a]\nrevision = 'b'\n", 1, "the key 'models.a.model' is missing", "add model"),
        ("# note\nlake = 3\n", 2, "'lake': input should be a valid string, found 3", None),
        ("lake = 'x'\nmodels = [\n", 2, "not valid TOML: Invalid value", "correct the line"),
        ("lake = 'x'\nmodels = = 1\n", 2, "not valid TOML", "correct the line"),
        ("[models.a]\nzzz = 1\nmodel = 'c'\n", 2, "unknown key 'models.a.zzz'", "use one of: about, model, "),
    ],
)
def test_a_mistake_names_file_line_and_remedy(
    tmp_path: Path, text: str, line: int, what: str, remedy: str | None
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_settings(path)
    assert what in caught.value.what
    assert caught.value.where is not None
    assert caught.value.where == f"{path}:{line}"
    assert remedy is None or (caught.value.remedy and remedy in caught.value.remedy)


def test_every_mistake_is_listed(tmp_path: Path) -> None:
    path = write(tmp_path, "lakes = 'x'\nother = 1\n")
    with pytest.raises(UsageError) as caught:
        load_settings(path)
    assert f"unknown key 'other' ({path}:2)" in caught.value.what


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_document(tmp_path / "absent.toml")


class Left(pydantic.BaseModel, extra="forbid"):
    kind: Literal["left"]
    size: int = 1


class Right(pydantic.BaseModel, extra="forbid"):
    kind: Literal["right"]
    weight: float = 1.0


class Recipe(pydantic.BaseModel, extra="forbid"):
    name: str = ""
    stages: list[Annotated[Left | Right, pydantic.Field(discriminator="kind")]] = []
    one: Left | None = None


def test_documents_compose_left_to_right_and_errors_name_the_last_that_sets_the_key() -> None:
    first = parse_document('name = "a"\n[one]\nkind = "left"\nsize = 2\n', "first.toml")
    second = parse_document('\n\n[one]\nsize = "big"\n', "second.toml")
    assert compose_documents([first, second])["one"] == {"kind": "left", "size": "big"}
    with pytest.raises(UsageError) as caught:
        validate_documents(Recipe, [first, second])
    assert caught.value.where == "second.toml:4"


def test_keys_inside_unions_and_arrays_of_tables_are_located() -> None:
    text = '[[stages]]\nkind = "left"\n\n[[stages]]\nkind = "right"\nwieght = 2.0\n'
    with pytest.raises(UsageError) as caught:
        validate_documents(Recipe, [parse_document(text, "r.toml")])
    assert caught.value.where == "r.toml:6"
    assert caught.value.what == "unknown key 'stages.1.wieght'"
    assert caught.value.remedy == "did you mean 'weight'?"


def test_a_value_that_no_document_sets_is_an_error_without_a_line() -> None:
    with pytest.raises(UsageError) as caught:
        validate_data(Recipe, {"name": 3}, [])
    assert caught.value.where == "configuration"


def test_lines_are_found_past_text_that_looks_like_keys() -> None:
    text = (
        'text = """\nkey = 1\n[table]\n"""\n'
        "list = [\n  # [table]\n  '[', # x\n  2,\n]\n"
        '"quoted key" = "# no comment [" # [\n'
        "a.b.c = {x = 1}\n"
        "['t 1'.u]\nkey = '''it's\nkey = 2'''\nlast = 1\n"
    )
    document = parse_document(text, "x.toml")
    lines = text.splitlines()
    for path, start in [
        (("text",), "text"),
        (("list",), "list"),
        (("list", 1), "list"),
        (("quoted key",), '"quoted key"'),
        (("a", "b", "c"), "a.b.c"),
        (("a", "b", "c", "x"), "a.b.c"),
        (("t 1", "u"), "['t 1'.u]"),
        (("t 1", "u", "key"), "key = '''"),
        (("t 1", "u", "last"), "last"),
    ]:
        line = document.find_line(path)
        assert line is not None, path
        assert lines[line - 1].startswith(start), path
    assert document.find_line(("table", "key")) is None


KEY = st.from_regex(r"[a-z][a-z0-9_-]{0,6}", fullmatch=True)
VALUE = st.one_of(
    st.integers(-5, 5).map(str),
    st.lists(st.text("ab#=[]{} ", max_size=5), max_size=3).map(
        lambda items: "[\n" + ",\n".join(f"  '{item}'" for item in items) + "\n]"
    ),
    st.text("ab#=[]{}\n ", max_size=20).map(lambda text: f"'''\n{text}'''"),
)


@given(st.dictionaries(KEY, st.dictionaries(KEY, VALUE, max_size=4), max_size=4))
def test_every_key_is_found_where_it_was_written(tables: dict[str, dict[str, str]]) -> None:
    lines: list[str] = []
    written: dict[tuple[str, ...], int] = {}
    for table, keys in tables.items():
        lines.append(f"[{table}]")
        written[table,] = len(lines)
        for key, value in keys.items():
            written[table, key] = len(lines) + 1
            lines += f"{key} = {value}".split("\n")
    document = parse_document("\n".join(lines), "made.toml")
    assert document.data == tomllib.loads(document.text)
    assert {path: document.find_line(path) for path in written} == written


def test_places_read_as_file_and_line() -> None:
    document = parse_document("a = 1\n", "f.toml")
    assert document.locate(("a",)) == "f.toml:1"
    assert document.locate(("b",)) == "f.toml"
    assert not document.sets(("b",))
    found: dict[str, Any] = document.data
    assert re.fullmatch(r"f\.toml:\d+", document.locate(tuple(found)))
