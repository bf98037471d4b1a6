"""What a source's name can mean, and the message where it means nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rlt_data.errors import InputError, UsageError
from rlt_data.sources.opening import open_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train-00000.jsonl", "test.jsonl", "more/train/x.jsonl", "README.md"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"question": name, "answer": "1"}) + "\n", "utf-8")
    return tmp_path / "data"


def test_a_file_and_a_directory_open_as_their_parts(folder: Path) -> None:
    assert [part.name for part in open_source(str(folder / "test.jsonl")).parts] == ["test.jsonl"]
    source = open_source(str(folder))
    assert [part.name for part in source.parts] == ["more/train/x.jsonl", "test.jsonl", "train-00000.jsonl"]
    assert source.notes == ["skipped files that are not data: README.md"]


def test_a_split_is_a_folder_or_the_beginning_of_a_name(folder: Path) -> None:
    names = [part.name for part in open_source(str(folder), split="train").parts]
    assert names == ["more/train/x.jsonl", "train-00000.jsonl"]
    with pytest.raises(UsageError, match="'validation'"):
        open_source(str(folder), split="validation")


@pytest.mark.parametrize(
    "name",
    [
        "missing.jsonl",
        "some/where/deep.parquet",
        "./missing",
        "~/missing",
        r"C:\data\missing",
        r"C:\data\x.jsonl",
        "a b",
    ],
)
def test_a_missing_path_is_not_a_hub_id(name: str) -> None:
    with pytest.raises(InputError, match="no such file or directory"):
        open_source(name)


def test_a_directory_without_data_lists_the_suffixes_of_data_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"no data files(.|\n)*\.parquet"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "arguments", "flag"),
    [
        ("file", {"size": 5}, "--size"),
        ("file", {"options": {"a": 1}}, "--option"),
        ("file", {"subset": "main"}, "--subset"),
        ("file", {"split": "train"}, "--split"),
        ("directory", {"revision": "main"}, "--revision"),
        ("problems", {"split": "train"}, "--split"),
    ],
)
def test_arguments_that_do_not_go_with_the_source_are_refused(
    folder: Path, kind: str, arguments: dict[str, Any], flag: str
) -> None:
    names = {
        "file": str(folder / "test.jsonl"),
        "directory": str(folder),
        "problems": "reasoning-gym:countdown",
    }
    with pytest.raises(UsageError, match=f"{flag} does not apply to"):
        open_source(names.get(kind, "reasoning-gym:countdown"), **arguments)


def test_what_is_neither_a_file_nor_a_directory_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path, kind in ((tmp_path / "pipe.jsonl", "a named pipe"), (Path("/dev/zero"), "a device")):
        with pytest.raises(InputError, match=f"the source is {kind}") as raised:
            open_source(str(path))
        assert raised.value.where == str(path)
