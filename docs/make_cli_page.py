"""Write docs/cli.md from the program's own --help; `make docs` runs it, and a test fails on a stale page."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from rlt_data_cli.main import COMMANDS, app

PAGE = Path(__file__).with_name("cli.md")

# What a Python user calls instead of the command.
TWINS = {
    "demo": "rlt_data.recipe.run.run_recipe",
    "init": "rlt_data.lake.Lake.prepare",
    "doctor": "rlt_data_cli.commands.doctor.check_packages",
    "models": "rlt_data.models.describe_models",
    "run": "rlt_data.recipe.run.run_recipe",
    "ingest": "rlt_data.stages.ingest.stage.ingest",
    "generate": "rlt_data.stages.generate.stage.generate",
    "score": "rlt_data.stages.score.stage.score",
    "reward": "rlt_data.stages.reward.stage.reward",
    "rank": "rlt_data.stages.rank.stage.rank",
    "substitute": "rlt_data.stages.substitute.stage.substitute",
    "export": "rlt_data.stages.export.stage.export",
    "train-teacher": "rlt_data.recipe.training.run_training_recipe",
    "train-student": "rlt_data.recipe.training.run_training_recipe",
    "sql": "rlt_data.lake.Lake.sql",
    "tables": "rlt_data.lake.Lake.tables",
    "log": "rlt_data.lake.Lake.runs",
    "lineage": "rlt_data.lake.Lake.lineage",
    "vacuum": "rlt_data.lake.Lake.vacuum",
}

HEAD = """\
# Command line

<!-- Written by `make docs` from --help; do not edit by hand. -->

Each command calls the Python function named below it, which you can call as well.

| exit code | meaning |
|---|---|
| 0 | done, now or by an earlier run |
| 1 | failed: the message says what happened, where, and what to do |
| 2 | wrong usage: an invalid option, recipe or selection |
| 130 | interrupted: run the same command again to resume |

| variable | meaning |
|---|---|
| `RLT_DATA_LAKE` | the lake, unless `--lake` is given |
| `RLT_DATA_DEBUG` | 1 shows the traceback of an unexpected error instead of writing it to a file |
| `HF_HOME`, `HF_HUB_CACHE` | where models of the Hugging Face hub are cached |
| `HF_HUB_OFFLINE` | 1 turns the network off |
| `NO_COLOR` | no colours |

Summaries and query results go to stdout, progress and messages to stderr. In a terminal, progress is a bar;
elsewhere it is a line every 30 seconds. `--quiet` turns it off. `--json` prints JSON and nothing else.
"""


def build_page() -> str:
    """Build the page: the group's help, then each command's."""
    parts = [HEAD, _fence(_read_help())]
    parts += [_describe_command(entry.name) for entry in COMMANDS]
    return "\n".join(parts)


def _describe_command(name: str) -> str:
    return f"## rlt-data {name}\n\nIn Python: `{TWINS[name]}`\n\n{_fence(_read_help(name))}"


def _read_help(*command: str) -> str:
    result = CliRunner(env={"COLUMNS": "100", "RLT_DATA_LAKE": ""}).invoke(
        app, [*command, "--help"], prog_name="rlt-data"
    )
    if result.exit_code:
        raise RuntimeError(result.output)
    return "\n".join(line.rstrip() for line in result.stdout.strip().splitlines())


def _fence(text: str) -> str:
    return f"```text\n{text}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(build_page(), encoding="utf-8")
    print(f"wrote {PAGE}")
