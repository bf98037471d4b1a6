"""Write docs/cli.md and the table of stages in docs/architecture.md; a test fails where one is stale."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from rlt_data.stages.registry import STAGES
from rlt_data.training.registry import ROLES
from rlt_data_cli.main import COMMANDS, app

CLI_PAGE = Path(__file__).with_name("cli.md")
ARCHITECTURE_PAGE = Path(__file__).with_name("architecture.md")
BEGIN, END = "<!-- stages: written by `make docs` -->", "<!-- end of stages -->"

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
| `NO_COLOR` | no colors |

Summaries and query results go to stdout, progress and messages to stderr. In a terminal, progress is a bar;
elsewhere it is a line every 30 seconds. `--quiet` turns it off. `--json` prints JSON and nothing else.
"""


def build_cli_page() -> str:
    """Build the page of commands: the group's help, then each command's."""
    parts = [HEAD, _fence(_read_help())]
    parts += [_describe_command(entry.name, entry.twin) for entry in COMMANDS]
    return "\n".join(parts)


def build_architecture_page(page: str) -> str:
    """Replace the table of stages in the architecture page by the current one."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{build_stage_table()}\n{END}{after}"


def build_stage_table() -> str:
    """Build the graph of stages and trainings as a table: what each reads and writes, in order."""
    lines = ["| reads | stage | writes | |", "|---|---|---|---|"]
    for stage in (*STAGES, *(training for role in ROLES for training in role.trainings)):
        written = set(stage.writes)
        reads = [name for name in (*stage.reads, *stage.pins) if name not in written]
        lines.append(
            f"| {', '.join(f'`{name}`' for name in reads) or 'files'} | **{stage.name}** "
            f"| {', '.join(f'`{name}`' for name in stage.writes) or 'files'} | {stage.help} |"
        )
    return "\n".join(lines) + "\n"


def _describe_command(name: str, twin: str) -> str:
    return f"## rlt-data {name}\n\nIn Python: `{twin}`\n\n{_fence(_read_help(name))}"


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
    CLI_PAGE.write_text(build_cli_page(), encoding="utf-8")
    page = ARCHITECTURE_PAGE.read_text(encoding="utf-8")
    ARCHITECTURE_PAGE.write_text(build_architecture_page(page), encoding="utf-8")
    print(f"wrote {CLI_PAGE} and {ARCHITECTURE_PAGE}")
