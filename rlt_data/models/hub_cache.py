"""Hub models on this machine: found in the local cache without network, fetched only where allowed.

The layout of the cache (`models--OWNER--NAME/refs` and `/snapshots/COMMIT`) is that of the Hugging Face
hub, and other programs share it. Only safetensors weights are fetched.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from rlt_data.errors import ModelError, require_module
from rlt_data.models.weight_files import list_missing_weights

TEXT_FILES = ("*.json", "*.jinja", "*.txt", "tokenizer.model")
NETWORK_TIMEOUT = 10.0
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_offline() -> bool:
    """Return whether the user switched the network off (`HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`)."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)


def find_hub_cache() -> Path:
    """Return the directory of the hub cache, from the environment variables of `huggingface_hub`."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return Path(os.environ[name]).expanduser()
    home = os.environ.get("HF_HOME")
    if home:
        return Path(home).expanduser() / "hub"
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(cache).expanduser() / "huggingface" / "hub"


def find_cached_snapshot(model: str, revision: str | None, *, weights: bool) -> Path | None:
    """Find a complete snapshot of hub id `model` on disk; its directory name is the commit.

    `revision` is a commit, branch or tag; None means `main`. With `weights`, every safetensors file must be
    in the snapshot.
    """
    folder = find_hub_cache() / f"models--{model.replace('/', '--')}"
    revision = revision or "main"
    reference = folder / "refs" / revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    if not _COMMIT.fullmatch(commit):
        return None
    snapshot = folder / "snapshots" / commit
    if not (snapshot / "config.json").is_file() and not (snapshot / "adapter_config.json").is_file():
        return None
    return snapshot if not weights or list_missing_weights(snapshot) == [] else None


def fetch_snapshot(model: str, revision: str | None, *, weights: bool) -> Path:
    """Fetch hub id `model` into the cache and return the snapshot's directory.

    Raises `ModelError` where the network is switched off or the hub cannot be reached, where the model
    does not exist or this user has no access to it, and where it has no safetensors weights.
    """
    where = f"{model}@{revision}" if revision else model
    by_hand = f"download it where there is network access (hf download {model}), or name a local directory"
    if is_offline():
        raise ModelError(
            "the model is not in the local cache, and the network is switched off (HF_HUB_OFFLINE)",
            where=f"{where} (cache: {find_hub_cache()})",
            remedy=f"unset HF_HUB_OFFLINE, or {by_hand}",
        )
    hub = require_module("huggingface_hub", "models")
    errors = require_module("huggingface_hub.errors", "models")
    httpx = require_module("httpx", "models")
    try:
        info = hub.HfApi().model_info(model, revision=revision, timeout=NETWORK_TIMEOUT)
        names = [sibling.rfilename for sibling in info.siblings or []]
        if weights and not any(name.endswith(".safetensors") for name in names):
            raise ModelError(
                "the model has no safetensors weights, and pickled weights are never loaded",
                where=where,
                remedy="request safetensors weights from its authors, or convert a copy that you trust",
            )
        patterns = [*TEXT_FILES, "*.safetensors"] if weights else list(TEXT_FILES)
        return Path(
            hub.snapshot_download(
                model, revision=info.sha, allow_patterns=patterns, etag_timeout=NETWORK_TIMEOUT
            )
        )
    except errors.GatedRepoError as error:
        raise ModelError(
            "the model is gated: you must accept its license first",
            where=where,
            remedy=f"accept it at https://huggingface.co/{model}, then: hf auth login",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise ModelError(
            "the hub has no such model or revision, or it is private",
            where=where,
            remedy="check the spelling (see rlt-data models); for a private model: hf auth login",
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        raise ModelError(
            f"the model is not in the local cache, and the hub cannot be reached ({type(error).__name__})",
            where=f"{where} (cache: {find_hub_cache()})",
            remedy=by_hand,
        ) from error
