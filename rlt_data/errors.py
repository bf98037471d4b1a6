"""The errors that users see. Each says what happened, where, and what to do about it."""

from __future__ import annotations

import importlib
from types import ModuleType


class RltDataError(Exception):
    """Base class of every error that this program raises on purpose.

    `what` is a sentence; `where` is a file, row, column, table or key; `remedy` says what to do. The
    command line prints the three without a traceback and exits with `exit_code`.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        parts = [what]
        if where:
            parts.append(f"  where: {where}")
        if remedy:
            parts.append(f"  do:    {remedy}")
        super().__init__("\n".join(parts))


class UsageError(RltDataError):
    """The command, recipe or configuration is invalid. Exit code 2."""

    exit_code = 2


class InputError(RltDataError):
    """Input data cannot be read at all. A single bad row is not an error: it goes to `rejects`."""


class LakeError(RltDataError):
    """The lake is missing, damaged, newer than this program, or in use by another process."""


class ModelError(RltDataError):
    """A model, its tokenizer or its chat template cannot be found or used."""


class EngineError(RltDataError):
    """An engine or server that generates or scores text cannot be started, died, or does not answer."""


class StageStoppedError(RltDataError):
    """A stage stopped because continuing would waste work or produce misleading rows."""


class MissingExtraError(RltDataError):
    """An optional dependency is not installed."""


def require_module(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtraError` with the extra of rlt-data that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"this needs the package {module.split('.')[0]!r}, which is not installed",
            remedy=f"pip install 'rlt-data[{extra}]'",
        ) from error
