"""The forms of an export, one file each.

To add one: a file with its `write`, its name in `Form` and its entry in `FORMS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rlt_data.stages.export.forms.writing import WriteForm

Form = Literal["dataset", "jsonl", "parquet", "sharegpt", "messages"]


@dataclass(frozen=True)
class FormDefinition:
    """One form: what it is, and whether it is a directory. Its module has the function `write`."""

    summary: str
    is_directory: bool = False


FORMS: Mapping[Form, FormDefinition] = {
    "dataset": FormDefinition("a Hugging Face dataset directory with its card", is_directory=True),
    "jsonl": FormDefinition("JSON lines with all columns"),
    "parquet": FormDefinition("one Parquet file with all columns"),
    "sharegpt": FormDefinition("JSON lines of conversations with from and value"),
    "messages": FormDefinition("JSON lines of messages with role and content, as in the OpenAI API"),
}

FORM_HELP = ", ".join(f"{name} ({definition.summary})" for name, definition in FORMS.items())


def load_writer(form: Form) -> WriteForm:
    """Import the function that writes `form`."""
    write: WriteForm = import_module(f"{__name__}.{form}").write
    return write
