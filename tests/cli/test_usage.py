"""Help, exit codes and errors of the command line as a whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from command_line import Program, QuickProgram, find_program

from rlt_data_cli.main import COMMANDS, app

NAMES = [entry.name for entry in COMMANDS]


def test_help_lists_every_command_with_its_line(program: Program):
    shown = program.succeed("--help")
    for entry in COMMANDS:
        assert f"  {entry.name} " in shown
        assert entry.help.split(" ")[0] in shown


@pytest.mark.parametrize("name", NAMES)
def test_every_option_and_argument_has_a_help_text(name: str):
    group = typer.main.get_command(app)
    command = group.get_command(typer.Context(group), name)
    silent = [parameter.name for parameter in command.params if not parameter.help]
    assert silent == []


@pytest.mark.parametrize("name", NAMES)
def test_the_short_line_of_a_command_is_a_sentence(name: str):
    entry = next(entry for entry in COMMANDS if entry.name == name)
    assert entry.help.endswith(".")
    assert len(entry.help) <= 64
    assert entry.load().__doc__


def test_version(program: Program):
    import rlt_data

    assert program.succeed("--version").strip() == f"rlt-data {rlt_data.__version__}"


def test_no_arguments_shows_help_and_is_wrong_usage(program: Program):
    assert "Usage: rlt-data" in program.fail(2)


def test_a_misspelled_command_gets_the_nearest(program: Program):
    assert "Did you mean 'generate'?" in program.fail(2, "genrate")


def test_unknown_options_are_wrong_usage(program: Program):
    assert "No such option: --frobnicate" in program.fail(2, "tables", "--frobnicate")


def test_a_value_of_the_wrong_type_names_its_option(program: Program):
    assert "--samples" in program.fail(2, "generate", "--teacher", "x", "--samples", "many")


def test_the_lake_may_be_named_before_the_command(program: Program, tmp_path: Path):
    program.succeed("init", ".")
    before = program.succeed("--lake", str(tmp_path / "lake"), "tables", "--json")
    assert before == program.succeed("tables", "--lake", str(tmp_path / "lake"), "--json")


def test_an_error_states_what_where_and_what_to_do(program: Program):
    message = program.fail(1, "tables", "--lake", "nowhere")
    assert message.startswith("error: ")
    assert "where:" in message
    assert "do:" in message
    assert "nowhere" in message


@pytest.mark.parametrize("format", ["table", "csv", "json", "parquet"])
def test_a_file_that_cannot_be_written_is_no_defect(quick: QuickProgram, format: str):
    quick.succeed("init", ".")
    message = quick.fail(1, "sql", "select 1 as a", "--format", format, "--output", "nowhere/answer")
    assert "nowhere/answer" in message
    assert "No such file or directory" in message or "Failed to open" in message
    assert "defect" not in message
    assert "check the path" in message


def test_an_unexpected_error_is_one_line_and_its_traceback_is_in_a_file(program: Program, tmp_path: Path):
    program.succeed("init", ".")
    code = (
        "import rlt_data_cli.main as main, rlt_data_cli.commands.tables as tables\n"
        "import rlt_data_cli.common as common\n"
        "def broken() -> None:\n"
        "    common.open_lake('lake')\n"
        "    raise ZeroDivisionError('made for the test')\n"
        "tables.command = broken\nmain.main(['tables'])\n"
    )
    for debug, traceback_shown in (("0", False), ("1", True)):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PATH": "", "RLT_DATA_DEBUG": debug},
            check=False,
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) is traceback_shown
    logs = list((tmp_path / "lake").rglob("*.log"))
    assert len(logs) == 1
    assert "ZeroDivisionError: made for the test" in logs[0].read_text(encoding="utf-8")


def test_an_interruption_says_how_to_resume(tmp_path: Path):
    code = (
        "import rlt_data_cli.main as main, rlt_data_cli.commands.tables as tables\n"
        "def stopped() -> None:\n    raise KeyboardInterrupt\n"
        "tables.command = stopped\nmain.main(['tables'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 130
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_not_an_error(program: Program, tmp_path: Path):
    program.succeed("init", ".")
    query = "select range from range(200000)"
    pipe = f"{find_program()} sql '{query}' --format csv | head -1"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout == "range\n"
    assert done.stderr == ""


def test_completion_offers_the_commands_without_loading_them(tmp_path: Path):
    env = {"PATH": "", "_RLT_DATA_COMPLETE": "complete_bash", "COMP_WORDS": "rlt-data s", "COMP_CWORD": "1"}
    done = subprocess.run(
        [find_program()], capture_output=True, text=True, cwd=tmp_path, env=env, check=False
    )
    assert done.stdout.split() == ["score", "substitute", "sql"]
