"""`rlt-data models`: list the names of models."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rlt_data.models.describe import ModelDescription, describe_models
from rlt_data.terminal import print_text

from ..common import JsonOption, print_json, print_rows


def command(json: JsonOption = False) -> None:
    """List the names of models, your own first, and show which models are on this machine.

    Every option that takes a model accepts one of these names, a hub id or a local directory. Add your own
    names to rlt-data.toml: [models.NAME] model = "PATH or HUB_ID". This command does not use the network.
    """
    models = describe_models()
    if json:
        print_json([asdict(model) for model in models])
        return
    print_rows([_make_row(model) for model in models], right=frozenset({"size", "context"}), wrap="about")
    print_text("\nadd your own: [models.NAME] model = ... in rlt-data.toml")


def _make_row(model: ModelDescription) -> dict[str, Any]:
    return {
        "name": model.alias,
        "model": model.model,
        "here": model.state,
        "size": _format_size(model.parameters),
        "context": "" if model.context is None else f"{model.context:,}",
        "about": model.about
        if model.origin == "built-in"
        else f"{model.about or ''} ({model.origin})".strip(),
    }


def _format_size(billions: float | None) -> str:
    if billions is None:
        return ""
    return f"{billions:.1f}B" if billions >= 1 else f"{billions * 1000:.1f}M"
