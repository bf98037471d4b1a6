"""Packages that a trainer's options need, checked before a training starts; `--dry-run` reports them too."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from rlt_data.errors import UsageError, require_module
from rlt_data.suggestions import find_nearest

# Packages of trackers whose name in `report_to` is another.
_TRACKERS = {
    "azure_ml": "azureml",
    "clearml": "clearml",
    "flyte": "flytekit",
    "kubeflow": "kubeflow",
}


def find_missing_packages(options: Any) -> list[str]:
    """List the packages that the options of a TRL trainer need and that are not installed, as sentences."""
    found = []
    trackers = options.report_to if isinstance(options.report_to, list) else [options.report_to or "none"]
    for name in trackers:
        available = _list_trackers()
        if name in ("none", "all"):
            continue
        if name not in available:
            near = find_nearest(name, available)
            found.append(f"report_to has no tracker {name!r}" + (f": did you mean {near!r}?" if near else ""))
        elif find_spec(_TRACKERS.get(name, name)) is None:
            found.append(f"report_to needs {name!r}, which is not installed: pip install {name}")
    if options.use_liger_kernel and find_spec("liger_kernel") is None:
        found.append("use_liger_kernel needs the package 'liger-kernel': pip install liger-kernel")
    if "8bit" in str(options.optim) and find_spec("bitsandbytes") is None:
        found.append("an 8-bit optimizer needs the package 'bitsandbytes': pip install bitsandbytes")
    return found


def refuse(reasons: Iterable[str], *, where: str) -> None:
    """Raise `UsageError` with all `reasons`; do nothing where there are none."""
    found = list(reasons)
    if found:
        raise UsageError("; ".join(found), where=where)


def _list_trackers() -> list[str]:
    integrations = require_module("transformers.integrations.integration_utils", "train")
    return list(integrations.INTEGRATION_TO_CALLBACK)
