from __future__ import annotations

from contextlib import chdir
from pathlib import Path

import pytest

from rlt_data.errors import UsageError
from rlt_data.formats import (
    BUILT_IN,
    build_student_messages,
    definition,
    list_formats,
    load_built_in,
    load_format,
)
from rlt_data.hashing import hash_content
from rlt_data.settings import Settings, load_settings

TEACHER = 'prefill = "{solution}\\n<e>"\nopen = "<e>"\nclose = "</e>"\n'
STUDENT = 'think_open = "<t>"\nthink_close = "</t>"\n'


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_stratos_expects_the_prompt_of_bespoke_stratos_letter_by_letter() -> None:
    system = load_built_in("stratos").student.system
    assert system.startswith("Your role as an assistant involves thoroughly exploring questions through")
    assert "steps separated with '\\n\\n'}" in system, "the prompt holds a backslash and an n, not a line end"
    assert "analisying" in system
    assert system.endswith("Now, try to solve the following question through the above guidelines:")
    assert "\n" not in system


def test_r1_has_no_system_prompt_and_no_solution_tags() -> None:
    messages = build_student_messages(load_built_in("r1"), "1+1?", "one and one\n", "2")
    assert messages == [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "<think>\none and one\n</think>\n\n2"},
    ]


def test_every_toml_file_of_the_package_is_a_format_of_its_name() -> None:
    folder = Path(definition.__file__).parent
    assert tuple(sorted(path.stem for path in folder.glob("*.toml"))) == BUILT_IN
    assert {load_built_in(name).name for name in BUILT_IN} == set(BUILT_IN)


@pytest.mark.parametrize(
    ("name", "digest"),
    [("r1", "c697d05da1602425e3633ff6abd74e57"), ("stratos", "01009bba726305a89cda5f006d7ffc21")],
)
def test_the_identity_of_a_built_in_format_does_not_change(name: str, digest: str) -> None:
    """Runs and rows in existing lakes are named by it."""
    assert hash_content(load_built_in(name).identity_text()) == digest


def test_a_user_adds_a_format_in_settings_and_overrides_one(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rlt-data.toml",
        '[formats.short]\nbase = "stratos"\n[formats.short.student]\nsystem = "Think."\n',
    )
    settings = load_settings(path)
    short = load_format("short", settings)
    assert short.name == "short"
    assert short.student.system == "Think."
    assert short.student.think_open == "<|begin_of_thought|>"
    assert short.teacher == load_built_in("stratos").teacher
    assert list_formats(settings) == ["r1", "short", "stratos"]


def test_a_format_is_loaded_from_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml", f"[teacher]\n{TEACHER}[student]\n{STUDENT}")
    mine = load_format(str(path), Settings())
    assert (mine.name, mine.teacher.close, mine.student.think_open) == ("mine", "</e>", "<t>")


def test_the_path_of_a_format_is_relative_to_the_working_directory(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path / "rlt-data.toml", ""))
    folder = tmp_path / "below"
    folder.mkdir()
    for directory, name in ((tmp_path, "above"), (folder, "here")):
        write(directory / "mine.toml", f'name = "{name}"\n[teacher]\n{TEACHER}[student]\n{STUDENT}')
    with chdir(folder):
        assert load_format("mine.toml", settings).name == "here"
        assert load_format("./mine.toml", settings).name == "here"
        assert load_format("../mine.toml", settings).name == "above"


def test_the_name_is_not_part_of_the_identity_and_every_text_is(tmp_path: Path) -> None:
    first = write(tmp_path / "a.toml", f"[teacher]\n{TEACHER}[student]\n{STUDENT}")
    second = write(tmp_path / "b.toml", f"[teacher]\n{TEACHER}[student]\n{STUDENT}")
    third = write(tmp_path / "c.toml", f'[teacher]\n{TEACHER}[student]\nsystem = "x"\n{STUDENT}')
    a, b, c = (load_format(str(path), Settings()).identity_text() for path in (first, second, third))
    assert a == b
    assert a != c


def test_an_unknown_name_lists_the_existing_formats() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'stratos'\?") as caught:
        load_format("stratus", Settings())
    assert "r1, stratos" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"[teacher]\n{TEACHER}[student]\nsytem = 'x'\n{STUDENT}", "unknown key 'student.sytem'"),
        (f"[teacher]\n{TEACHER}[student]\nthink_open = '<t>'\n", "'student.think_close' is missing"),
        (
            "[teacher]\nprefill = '<e>'\nopen = '<e>'\nclose = '</e>'\n",
            r"\{solution\} must occur exactly once",
        ),
        (
            f"[teacher]\n{TEACHER}[student]\nuser = '{{question}} {{solution}}'\n{STUDENT}",
            "sees neither the solution",
        ),
        (
            "[teacher]\nprefill = '{solution}<e>{think}'\nopen = '<e>'\nclose = '</e>'\n",
            "what the teacher writes",
        ),
        ("[teacher]\nprefill = '{solution}'\nopen = '<e>'\nclose = '</e>'\n", "must open the explanation"),
        ("[teacher]\nprefill = '{solution}<e>'\nopen = '<e>'\nclose = ''\n", "must not be empty"),
        (f"base = 'other'\n[teacher]\n{TEACHER}", "cannot be based on 'other'"),
        ("[teacher\n", "not valid TOML"),
    ],
)
def test_a_wrong_format_is_refused_with_the_reason(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path / "wrong.toml", text)
    with pytest.raises(UsageError, match=expected):
        load_format(str(path), Settings())


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_valid_one(tmp_path: Path) -> None:
    path = write(tmp_path / "wrong.toml", f"[teacher]\n{TEACHER}[student]\nsytem = 'x'\n{STUDENT}")
    with pytest.raises(UsageError) as caught:
        load_format(str(path), Settings())
    assert caught.value.where == f"{path}:6"
    assert caught.value.remedy == "did you mean 'system'?"

    settings = write(
        tmp_path / "rlt-data.toml", '[formats.f]\nbase = "r1"\n[formats.f.student]\nsytem = "x"\n'
    )
    with pytest.raises(UsageError) as caught:
        load_format("f", load_settings(settings))
    assert caught.value.where == f"{settings}:4"
    assert caught.value.remedy == "did you mean 'system'?"
