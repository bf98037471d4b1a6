"""Datasets of the Hugging Face hub, loaded with the package `datasets`."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit
from urllib.request import getproxies

from rlt_data.errors import InputError, UsageError, require_module
from rlt_data.hashing import hash_content, hash_file
from rlt_data.sources.files.arrow_files import BATCH_ROWS, read_batch
from rlt_data.sources.rows import BadRow, SourceRow

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubPart:
    """One split of a hub dataset; `rows` is the `datasets.Dataset`, memory-mapped."""

    name: str
    rows: Any

    layout: ClassVar[str | None] = None
    dataset: ClassVar[str | None] = None

    def count_rows(self) -> int | None:
        """Return the number of rows."""
        return len(self.rows)

    def take_stamp(self) -> None:
        """Return None: nothing writes to it."""

    def identify(self) -> str:
        """Return a hash of the hub's commit where the cache records it, else of the cached files."""
        files = [Path(entry["filename"]) for entry in self.rows.cache_files]
        commits = {file.parent.name for file in files}
        if len(commits) == 1 and _COMMIT.fullmatch(next(iter(commits))):
            return hash_content("hub", self.name, *commits)
        return hash_content("cache", *map(hash_file, files))

    def read(self) -> Iterator[SourceRow | BadRow]:
        """Read the rows in order."""
        number = 0
        for table in self.rows.with_format("arrow").iter(batch_size=BATCH_ROWS):
            for batch in table.to_batches():
                yield from read_batch(batch, number)
                number += batch.num_rows


def is_hub_id(text: str) -> bool:
    """Return whether `text` could be a hub id: NAME or OWNER/NAME."""
    return _HUB_ID.fullmatch(text) is not None


def load_hub_parts(
    hub_id: str, *, subset: str | None = None, split: str | None = None, revision: str | None = None
) -> list[HubPart]:
    """Load the splits of a hub dataset, from the local cache or over the network.

    Raises `InputError` where neither has it, `UsageError` for an unknown subset or split, and
    `MissingExtraError` where `datasets` is not installed.
    """
    datasets = require_module("datasets", "hub")
    errors = require_module("datasets.exceptions", "hub")
    try:
        with _prefer_cache_without_network(datasets):
            loaded = datasets.load_dataset(hub_id, name=subset, split=split, revision=revision)
    except (ConnectionError, OSError, errors.DatasetsError) as error:
        raise _explain_missing(hub_id, error) from error
    except ValueError as error:
        # An unknown subset or split; the message of `datasets` lists those that exist.
        raise UsageError(
            f"the dataset {hub_id} cannot be loaded: {_shorten(error)}",
            remedy="choose an existing subset (--subset) and split (--split)",
        ) from error
    if split is not None:
        return [HubPart(_name_part(hub_id, subset, split), loaded)]
    return [HubPart(_name_part(hub_id, subset, name), dataset) for name, dataset in loaded.items()]


@contextmanager
def _prefer_cache_without_network(datasets: Any) -> Iterator[None]:
    """Switch `datasets` to its offline mode where the hub's host name cannot be resolved.

    Otherwise it retries for half a minute, with many warnings, before it uses its cache.
    """
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or not _can_resolve_hub(datasets.config.HF_ENDPOINT)
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _can_resolve_hub(endpoint: str) -> bool:
    if getproxies():
        return True  # the proxy resolves names
    try:
        socket.getaddrinfo(urlsplit(endpoint).hostname, None)
    except OSError:
        return False
    return True


def _name_part(hub_id: str, subset: str | None, split: str) -> str:
    return "/".join(part for part in (hub_id, subset, split) if part)


def _explain_missing(hub_id: str, error: Exception) -> InputError:
    return InputError(
        f"the dataset {hub_id!r} was not found: it is not a file or directory here, not in the local "
        "cache, and could not be fetched from the hub",
        where=_shorten(error),
        remedy="check the name and the network; or run, on a machine with network access, "
        f"`hf download {hub_id} --repo-type dataset --local-dir DIR`, copy DIR here and ingest it",
    )


def _shorten(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:300]
