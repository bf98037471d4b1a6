"""Which weight files a model directory loads: those beside the configuration, and those that its index names.

An index is data from elsewhere: a name that leads out of the model's directory, or to a file that is not
safetensors, is refused, so that everything that is loaded is part of the model's identity.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from shlex import quote

from rlt_data.errors import ModelError
from rlt_data.models.files import read_json

WEIGHTS_INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def list_index_entries(directory: Path) -> list[str]:
    """List the files that the weight index in `directory` names, relative to it; empty without an index.

    Raises `ModelError` for an index that is not one, and for a name that is not a safetensors file inside
    `directory`.
    """
    index = directory / WEIGHTS_INDEX
    if not index.is_file():
        return []
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelError(
            "the weight index has no weight_map from tensors to files",
            where=str(index),
            remedy="copy the model again, with its index",
        )
    names = sorted(set(weight_map.values()))
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or Path(name).is_absolute():
            raise ModelError(
                f"the weight index names {name!r}, which is outside the model's directory",
                where=str(index),
                remedy="keep every *.safetensors file in the model's directory, and name it by its file name",
            )
        if path.suffix != ".safetensors":
            raise ModelError(
                f"the weight index names {name!r}, and only *.safetensors files are ever loaded",
                where=str(index),
                remedy="save the model with safe_serialization=True",
            )
    return names


def list_missing_weights(directory: Path) -> list[str]:
    """List the safetensors files that are missing from `directory`. Raises as `list_index_entries`."""
    if not (directory / "config.json").is_file() and (directory / "adapter_config.json").is_file():
        return [] if (directory / ADAPTER_WEIGHTS).is_file() else [ADAPTER_WEIGHTS]
    named = list_index_entries(directory)
    if named:
        return [name for name in named if not (directory / name).is_file()]
    return [] if any(directory.glob("*.safetensors")) else ["model.safetensors"]


def refuse_links_outside(directory: Path, files: Iterable[Path]) -> None:
    """Raise `ModelError` where one of `files` of a model is a link out of its directory.

    The links of a snapshot in a hub cache to the cache's own blobs (`../../blobs/...`) are accepted. The
    directory itself may be a link.
    """
    roots = [directory.resolve()]
    cached = directory.parent.name == "snapshots"
    if cached:
        roots.append((directory.parent.parent / "blobs").resolve())
    for file in files:
        real = file.resolve()
        if not any(real.is_relative_to(root) for root in roots):
            name = file.relative_to(directory).as_posix()
            raise ModelError(
                f"{name} is a link to a file outside "
                + ("the hub cache's copy of the model" if cached else "the model's directory"),
                where=f"{file} -> {real}",
                remedy="download the model again"
                if cached
                else f"copy the file to its place (cp --remove-destination {quote(str(real))} "
                f"{quote(str(file))}), or name the directory that holds all files of the model",
            )
