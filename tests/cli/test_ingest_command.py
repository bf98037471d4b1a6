"""`rlt-data ingest`, as a user sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import QuickProgram

GOOD = {"prompt": "What is 2 + 2?", "response": "It is \\boxed{4}."}


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join([json.dumps(GOOD), "{broken", json.dumps({"response": "4"})]), "utf-8")
    return path


def test_mapped_columns_are_ingested_and_bad_rows_are_counted(quick: QuickProgram, problems: Path) -> None:
    message = quick.succeed("ingest", problems.name, "--map", "question=prompt,solution=response")
    assert "questions@1" in message
    assert "rejected malformed json: 1" in message
    rows = quick.succeed(
        "sql", "select source, source_row, reason from rejects order by 2", "--format", "csv"
    )
    assert rows.splitlines()[1:] == ["problems.jsonl,1,malformed_json", "problems.jsonl,2,missing_question"]


def test_columns_that_no_layout_has_are_a_usage_error_with_a_mapping(
    quick: QuickProgram, problems: Path
) -> None:
    message = quick.fail(2, "ingest", problems.name)
    assert "prompt, response" in message
    assert "--map question=prompt,solution=response" in message
    assert "bespoke-stratos" in message


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("missing.jsonl",), 1, "no such file or directory"),
        (("acme/unheard-of",), 1, "hf download acme/unheard-of"),
        (("problems.jsonl", "--layout", "gsm8"), 2, "gsm8k"),
        (("problems.jsonl", "--size", "5"), 2, "--limit"),
        (("problems.jsonl", "--map", "prompt"), 2, "NAME=VALUE"),
        (("problems.jsonl", "--solution-template", "x"), 2, "{answer}"),
        (("reasoning-gym:cuntdown",), 2, "countdown"),
        (("reasoning-gym:countdown", "--option", "min_nmbers=3"), 2, "min_numbers"),
    ],
)
def test_errors_say_what_to_do(
    quick: QuickProgram, problems: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert message in quick.fail(code, "ingest", *arguments)


def test_options_of_a_generator_may_be_lists(quick: QuickProgram) -> None:
    pytest.importorskip("reasoning_gym")
    options = ("--option", "operators=+,-,max_numbers=4", "--option", "max_target=200")
    quick.succeed("ingest", "reasoning-gym:countdown", "--size", "6", *options)
    answers = quick.succeed("sql", "select answer from questions", "--format", "csv").splitlines()[1:]
    assert len(answers) == 6
    assert not set("*/") & set("".join(answers))
