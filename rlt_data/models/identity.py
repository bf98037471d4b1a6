"""Resolve a model name (alias, local path or hub id) to its exact weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

from rlt_data.errors import ModelError
from rlt_data.models.config_check import check_config
from rlt_data.models.files import read_json
from rlt_data.models.fingerprint import hash_model_directory, list_model_files
from rlt_data.models.hub_cache import fetch_snapshot, find_cached_snapshot
from rlt_data.models.registry import RegistryEntry, list_registry
from rlt_data.models.weight_files import list_missing_weights, refuse_links_outside
from rlt_data.settings import Settings, load_settings
from rlt_data.suggestions import find_nearest

Need = Literal["weights", "tokenizer", "name"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class ModelIdentity:
    """One model in one role, with the exact weights that its name was resolved to.

    `name` is what the user wrote; `model` the hub id or absolute path that it resolved to; `revision`
    the hub commit, or the content hash of local files; None where the weights are elsewhere (a served
    model). `directory` contains the files on this machine; None for a model that is only named. Where
    `model` is a LoRA adapter, `directory` contains the adapter and `base` is the model under it.
    """

    role: str
    name: str
    model: str
    revision: str | None
    directory: Path | None = None
    trust_remote_code: bool = False
    base: ModelIdentity | None = None

    @property
    def content_key(self) -> str:
        """The identity of the weights in content hashes: the revision, else the name of the model.

        That of an adapter includes its base model.
        """
        own = self.revision or self.model
        return own if self.base is None else f"{own}+{self.base.content_key}"

    def require_directory(self) -> Path:
        """Return the local directory. Raises `ModelError` for a model that is only named."""
        if self.directory is None:
            raise ModelError(
                "the files of the model are not on this machine",
                where=self.model,
                remedy="use a local directory, or a hub id that can be downloaded",
            )
        return self.directory


def resolve_model(
    name: str, *, role: str, settings: Settings | None = None, need: Need = "weights"
) -> ModelIdentity:
    """Resolve `name`: the user's alias, a built-in alias, a local path, or a hub id, in this order.

    A hub id that is cached is used without network; its revision is the commit of the cached snapshot.
    `need` is what must be on this machine: the `weights`, only `tokenizer` and configuration, or nothing
    but the `name` (a model behind a server). `settings` defaults to the nearest `rlt-data.toml`.

    Raises `ModelError` where nothing is found, where weights are missing or pickled, and where an adapter is
    its own base, also by way of others.
    """
    return _resolve(name, role=role, settings=settings, need=need, above=())


def _resolve(
    name: str, *, role: str, settings: Settings | None, need: Need, above: tuple[Path, ...]
) -> ModelIdentity:
    """Resolve a model; `above` are the adapters that it is the base of."""
    settings = settings if settings is not None else load_settings()
    entries = list_registry(settings)
    entry = entries.get(name) or RegistryEntry(alias=name, model=name, origin="command")
    path = _find_local_path(entry.model)
    if path is None and not _HUB_ID.fullmatch(entry.model):
        if need == "name":
            return ModelIdentity(role, name, entry.model, entry.revision)
        raise _explain_unknown_name(entry, list(entries))
    if need == "name":
        return ModelIdentity(role, name, str(path or entry.model), entry.revision)
    if path is not None:
        return _identify_directory(path, role, name, entry, settings, need, above)
    weights = _needs_weights(need)
    snapshot = find_cached_snapshot(entry.model, entry.revision, weights=weights)
    snapshot = snapshot or fetch_snapshot(entry.model, entry.revision, weights=weights)
    _check_files(snapshot, entry)
    revision = snapshot.name
    base = _find_base(snapshot, role, settings, need, above)
    return ModelIdentity(role, name, entry.model, revision, snapshot, entry.trust_remote_code, base)


def _needs_weights(need: Need) -> bool:
    match need:
        case "weights":
            return True
        case "tokenizer" | "name":
            return False
        case _:
            assert_never(need)


def _find_local_path(model: str) -> Path | None:
    path = Path(model).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise ModelError(
            "there is no such model directory",
            where=str(path),
            remedy="check the path; a model directory contains config.json and *.safetensors",
        )
    return None


def _identify_directory(
    path: Path,
    role: str,
    name: str,
    entry: RegistryEntry,
    settings: Settings,
    need: Need,
    above: tuple[Path, ...],
) -> ModelIdentity:
    adapter = (path / "adapter_config.json").is_file()
    if not adapter and not (path / "config.json").is_file():
        raise ModelError(
            "the directory is not a model: it has no config.json",
            where=str(path),
            remedy="use the directory that save_pretrained wrote",
        )
    missing = list_missing_weights(path) if _needs_weights(need) else []
    if missing:
        pickled = sorted(found.name for pattern in _PICKLED for found in path.glob(pattern))
        raise ModelError(
            f"pickled weights are never loaded ({', '.join(pickled[:3])})"
            if pickled
            else f"weights are missing: {', '.join(missing[:3])}",
            where=str(path),
            remedy="save the model with safe_serialization=True"
            if pickled
            else "copy the model again, with every *.safetensors file",
        )
    _check_files(path, entry)
    base = _find_base(path, role, settings, need, above)
    revision = hash_model_directory(path, code=entry.trust_remote_code)
    return ModelIdentity(role, name, str(path), revision, path, entry.trust_remote_code, base)


def _check_files(directory: Path, entry: RegistryEntry) -> None:
    templates = (directory / "additional_chat_templates").glob("*.jinja")
    refuse_links_outside(directory, [*list_model_files(directory, code=entry.trust_remote_code), *templates])
    check_config(directory)


def _find_base(
    directory: Path, role: str, settings: Settings, need: Need, above: tuple[Path, ...]
) -> ModelIdentity | None:
    """Resolve the model under a LoRA adapter; None where `directory` is a whole model."""
    file = directory / "adapter_config.json"
    if (directory / "config.json").is_file() or not file.is_file():
        return None
    base = read_json(file).get("base_model_name_or_path")
    if not base:
        raise ModelError(
            "the adapter does not name its base model",
            where=str(file),
            remedy="set base_model_name_or_path in this file",
        )
    if directory.resolve() in above:
        raise ModelError(
            f"the adapter is its own base model, which it names {str(base)!r}",
            where=str(file),
            remedy="set base_model_name_or_path in this file to the model that the adapter was trained on",
        )
    return _resolve(str(base), role=role, settings=settings, need=need, above=(*above, directory.resolve()))


def _explain_unknown_name(entry: RegistryEntry, aliases: list[str]) -> ModelError:
    near = find_nearest(entry.model, aliases)
    hint = f"did you mean {near!r}? " if near else ""
    return ModelError(
        f"no model is named {entry.model!r}",
        where=f"alias {entry.alias!r} in {entry.origin}" if entry.alias != entry.model else None,
        remedy=hint + "rlt-data models lists all aliases; or use a hub id (owner/name) or an existing path",
    )
