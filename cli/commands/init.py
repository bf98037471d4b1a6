"""`rlt-data init`: write the settings and make an empty lake."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlt_data.errors import UsageError
from rlt_data.settings import SETTINGS_FILE
from rlt_data.terminal import print_text

from ..common import open_lake

TEMPLATE = """\
# Settings of rlt-data for this folder and all folders below it. Paths are relative to this file.

# The lake: a directory, or a URI such as "s3://bucket/prefix". --lake and RLT_DATA_LAKE take precedence.
lake = "lake"

# Your own names for models. Every option that takes a model accepts a name, a hub id or a local directory.
# [models.my-student]
# model = "checkpoints/student"          # a directory written by save_pretrained, or a hub id
# revision = "main"                      # branch, tag or commit of a hub id
# about = "distilled on run 3"

# Override a built-in name:
# [models.qwen7b]
# model = "/data/models/Qwen2.5-7B-Instruct"

# Your own conversation format; see docs/formats.md for every key.
# [formats.my-format]
# base = "stratos"

# Your own task to evaluate models on; see docs/evaluation.md for every key.
# [tasks.my-task]
# base = "math500"
# source = { dataset = "questions.jsonl" }
"""


def command(
    folder: Annotated[Path, typer.Argument(help="The folder; created if it does not exist.")] = Path(),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing rlt-data.toml.")
    ] = False,
) -> None:
    """Write a commented rlt-data.toml and make an empty lake beside it."""
    settings = folder / SETTINGS_FILE
    if settings.exists() and not overwrite:
        raise UsageError(
            "rlt-data.toml already exists",
            where=str(settings),
            remedy="edit it, or add --overwrite to replace it",
        )
    folder.mkdir(parents=True, exist_ok=True)
    settings.write_text(TEMPLATE, encoding="utf-8")
    lake = open_lake(str(folder / "lake"), create=True)
    lake.prepare()
    print_text(f"wrote {settings} and the lake {lake.uri}")
    print_text("next: rlt-data ingest FILE, or rlt-data demo to try the whole pipeline")
