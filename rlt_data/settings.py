"""The settings of a user: `rlt-data.toml` in the working directory or the nearest one above it.

It defines models (`[models.NAME]`), conversation formats (`[formats.NAME]`), tasks (`[tasks.NAME]`) and the
default lake. Relative paths in it are relative to the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pydantic

from rlt_data.toml import TomlDocument, load_document, validate_documents

SETTINGS_FILE = "rlt-data.toml"


class ModelSettings(pydantic.BaseModel):
    """The model of one alias of the user."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    model: str = pydantic.Field(description="A hub id, a local directory, or a built-in alias.")
    revision: str | None = pydantic.Field(None, description="Branch, tag or commit of a hub id.")
    trust_remote_code: bool = pydantic.Field(
        False, description="Run Python code that comes with the model. Only for models that you trust."
    )
    about: str | None = pydantic.Field(None, description="A note for `rlt-data models`.")


class Settings(pydantic.BaseModel):
    """The content of `rlt-data.toml`; every part is optional."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    lake: str | None = pydantic.Field(None, description="Directory or URI of the lake.")
    models: Mapping[str, ModelSettings] = pydantic.Field(default_factory=dict)
    formats: Mapping[str, Mapping[str, Any]] = pydantic.Field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, Any]] = pydantic.Field(default_factory=dict)

    _document: TomlDocument | None = pydantic.PrivateAttr(default=None)
    _path: Path | None = pydantic.PrivateAttr(default=None)

    @property
    def path(self) -> Path | None:
        """The file that these settings were read from; None where there is none."""
        return self._path

    @property
    def document(self) -> TomlDocument | None:
        """The parsed file, to report the line of later errors."""
        return self._document

    @property
    def lake_uri(self) -> str | None:
        """The lake as a URI or an absolute path; None where the file sets none."""
        if self.lake is None or self._path is None or "://" in self.lake:
            return self.lake
        return str(self._path.parent / Path(self.lake).expanduser())

    def resolve_path(self, text: str) -> str:
        """Make a local path relative to the settings file absolute; leave URIs and hub ids as they are."""
        if self._path is None or "://" in text:
            return text
        candidate = Path(text).expanduser()
        if candidate.is_absolute():
            return str(candidate)
        beside = self._path.parent / candidate
        return str(beside) if text.startswith(".") or beside.exists() else text


_CURRENT: ContextVar[Settings | None] = ContextVar("current settings", default=None)


def find_settings_file(start: Path | None = None) -> Path | None:
    """Find the nearest `rlt-data.toml`, from `start` (default: the working directory) upward."""
    directory = (start or Path.cwd()).resolve()
    for folder in (directory, *directory.parents):
        if (folder / SETTINGS_FILE).is_file():
            return folder / SETTINGS_FILE
    return None


@contextmanager
def use_settings(settings: Settings) -> Iterator[None]:
    """Let `load_settings` return `settings` within the block, so that the models of a recipe can be used."""
    token = _CURRENT.set(settings)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def load_settings(path: Path | None = None) -> Settings:
    """Load settings from `path`, else those of `use_settings`, else the nearest `rlt-data.toml`, else none.

    Raises `UsageError` with file, line and the nearest valid key where the file is invalid.
    """
    current = _CURRENT.get()
    if path is None and current is not None:
        return current
    path = path or find_settings_file()
    if path is None:
        return Settings()
    document = load_document(path)
    settings = validate_documents(Settings, [document])
    settings._document = document
    settings._path = path.resolve()
    return settings
