"""Checks the actions of a log entry: what the Delta protocol requires of each kind, by name and type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from deltalake import Schema

_REQUIRED: dict[str, dict[str, type]] = {
    "commitInfo": {"timestamp": int},
    "protocol": {"minReaderVersion": int, "minWriterVersion": int},
    "metaData": {
        "id": str,
        "format": dict,
        "schemaString": str,
        "partitionColumns": list,
        "configuration": dict,
    },
    "add": {"path": str, "partitionValues": dict, "size": int, "modificationTime": int, "dataChange": bool},
    "remove": {"path": str, "dataChange": bool},
    "txn": {"appId": str, "version": int},
    "domainMetadata": {"domain": str, "configuration": str, "removed": bool},
    "cdc": {"path": str, "partitionValues": dict, "size": int, "dataChange": bool},
}


def find_action_fault(action: object) -> str | None:
    """Say what is wrong with one line of an entry, an object that holds one action; None if nothing is."""
    if not isinstance(action, Mapping) or len(action) != 1:
        return "a line is not one action"
    kind, content = next(iter(action.items()))
    if kind not in _REQUIRED:
        return f"{kind!r} is not an action"
    if not isinstance(content, Mapping):
        return f"{kind} is not an object"
    for name, expected in _REQUIRED[kind].items():
        value = content.get(name)
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            return f"{kind} has no {name}" if value is None else f"{name} of {kind} has the wrong type"
    if kind == "protocol" and min(content["minReaderVersion"], content["minWriterVersion"]) < 1:
        return "protocol has a version below 1"
    if kind == "metaData":
        return _find_metadata_fault(content)
    if kind == "add":
        return _find_statistics_fault(content.get("stats"))
    return None


def _find_metadata_fault(metadata: Mapping[str, Any]) -> str | None:
    format = metadata["format"]
    if not isinstance(format.get("provider"), str) or not isinstance(format.get("options"), Mapping):
        return "format of metaData has no provider or options"
    if not all(isinstance(value, str) for value in metadata["configuration"].values()):
        return "configuration of metaData has the wrong type"
    try:
        Schema.from_json(metadata["schemaString"])
    except Exception as error:  # delta-rs raises a bare Exception, among others.
        return f"its columns cannot be read: {error}"
    return None


def _find_statistics_fault(text: object) -> str | None:
    if text is None:
        return None
    try:
        statistics = json.loads(str(text))
    except ValueError:
        statistics = None
    if not isinstance(statistics, Mapping) or not isinstance(statistics.get("numRecords", 0), int):
        return "stats of add cannot be read"
    return None
