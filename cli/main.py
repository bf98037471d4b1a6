"""Entry point of `rlt-data`: the table of commands. A command's module is imported when it is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from rlt_data.errors import UsageError
from rlt_data.stages.registry import STAGES
from rlt_data.terminal import print_text
from rlt_data.training.registry import ROLES

from .lazy import Entry, LazyGroup
from .streams import check_stdout, own_streams

PREPARE, PIPELINE, LOOK, KEEP = "Setup", "Pipeline, in order", "Inspection", "Maintenance"

COMMANDS = (
    Entry(
        "demo", PREPARE, "Run the whole pipeline offline, on tiny models.", "rlt_data.recipe.run.run_recipe"
    ),
    Entry(
        "init", PREPARE, "Write a commented rlt-data.toml and an empty lake.", "rlt_data.lake.Lake.prepare"
    ),
    Entry(
        "doctor",
        PREPARE,
        "Check the installation, the models and the lake.",
        "rlt_data_cli.commands.doctor.check_packages",
    ),
    Entry("models", PREPARE, "List the model names of the registry.", "rlt_data.models.describe_models"),
    Entry("tasks", PREPARE, "List the evaluation tasks, or show one.", "rlt_data.tasks.definition.load_task"),
    Entry("run", PIPELINE, "Run the stages of a recipe (TOML).", "rlt_data.recipe.run.run_recipe"),
    *(Entry(stage.name, PIPELINE, stage.help, stage.function, stage) for stage in STAGES),
    *(
        Entry(role.command, PIPELINE, role.help, "rlt_data.recipe.training.run_training_recipe", role=role)
        for role in ROLES
    ),
    Entry("sql", LOOK, "Query the lake in SQL, once or at a prompt.", "rlt_data.lake.Lake.sql"),
    Entry("tables", LOOK, "List the tables, or describe one.", "rlt_data.lake.Lake.tables"),
    Entry("log", LOOK, "List the runs, newest first, or show one.", "rlt_data.lake.Lake.runs"),
    Entry("lineage", LOOK, "Show what a run, a table or a row was made from.", "rlt_data.lake.Lake.lineage"),
    Entry("verify", KEEP, "Check every file of the lake; repair it.", "rlt_data.lake.Lake.verify"),
    Entry("vacuum", KEEP, "Compact the tables and remove unreferenced files.", "rlt_data.lake.Lake.vacuum"),
)

HELP = """Curate datasets for Reinforcement Learning Teachers: a teacher explains solved problems, a student
scores how much each explanation helps, and the best become a distillation set.

Every stage reads tables of the lake and writes new versions; running an interrupted command again resumes
it. Start with `rlt-data demo`."""


class CommandGroup(LazyGroup):
    """The commands of this program."""

    entries = COMMANDS


app = typer.Typer(
    cls=CommandGroup,
    name="rlt-data",
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def show_version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        import rlt_data

        print_text(f"rlt-data {rlt_data.__version__}")
        raise typer.Exit


@app.callback()
def accept_common_options(
    lake: Annotated[
        str | None,
        typer.Option(help="The lake: a directory or URI. Most commands also accept it after their name."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Declare the options that precede the command; `choose_lake` reads `--lake` from the context."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with 0 (done), 1 (failed), 2 (wrong usage) or 130 (interrupted)."""
    with own_streams():
        try:
            check_stdout()
            check_arguments(sys.argv[1:] if arguments is None else arguments)
            code = app(args=arguments, prog_name="rlt-data", standalone_mode=False) or 0
            if code == 130:  # how Typer returns a KeyboardInterrupt
                raise KeyboardInterrupt
            sys.stdout.flush()
        except (SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # Panics of Rust libraries are not Exceptions.
            from .failures import report_failure

            code = report_failure(error)
    sys.exit(code)


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise `UsageError` for an argument that is not valid UTF-8: lakes and tables hold only such text."""
    for argument in arguments:
        if not argument.isascii() and any("\ud800" <= character <= "\udfff" for character in argument):
            raise UsageError(
                "an argument is not valid UTF-8",
                where=argument,
                remedy="rename the file or folder: paths are stored as text, in UTF-8",
            )
