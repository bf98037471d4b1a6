"""The table of scoring backends: what each can do, and how it is opened.

To add one: its class (see `LogprobBackend`) in a module of its own, its name in `BackendName`, and its
entry in `BACKENDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rlt_data.models.identity import ModelIdentity
from rlt_data.reward.backends.base import LogprobBackend

BackendName = Literal["torch", "vllm", "openai"]


@dataclass(frozen=True)
class BackendSettings:
    """How a backend runs a model; `memory` in bytes beyond the weights, None for its default.

    `notify` is called with a sentence where a backend must wait.
    """

    dtype: str = "auto"
    device: str = "auto"
    memory: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    notify: Callable[[str], None] | None = None


@dataclass(frozen=True)
class BackendEntry:
    """One backend.

    `open` loads a model at a temperature; None for our own forward passes (`scoring.scorer`).
    `exact`: returns whole distributions, so that the exact divergence can be computed.
    `served`: students are behind a server and the teacher runs in this process.
    `scales_weights`: the temperature is divided into a copy of the model's weights.
    """

    help: str
    open: Callable[[ModelIdentity, float, BackendSettings], LogprobBackend] | None = None
    exact: bool = False
    served: bool = False
    scales_weights: bool = False


def _open_vllm(identity: ModelIdentity, temperature: float, settings: BackendSettings) -> LogprobBackend:
    from rlt_data.reward.backends.vllm import VllmBackend

    return VllmBackend(
        identity,
        temperature,
        dtype=settings.dtype,
        device=settings.device,
        memory_bytes=settings.memory,
        options=settings.options,
    )


def _open_server(identity: ModelIdentity, temperature: float, settings: BackendSettings) -> LogprobBackend:
    from rlt_data.reward.backends.openai import ServerBackend

    return ServerBackend(identity, temperature, options=settings.options, notify=settings.notify)


BACKENDS: Mapping[BackendName, BackendEntry] = {
    "torch": BackendEntry("our own forward passes, exact", exact=True),
    "vllm": BackendEntry("vLLM on this machine", _open_vllm, scales_weights=True),
    "openai": BackendEntry("students behind a vLLM server", _open_server, served=True),
}

BACKEND_HELP = "; ".join(f"{name}: {entry.help}" for name, entry in BACKENDS.items())
"""One line on every backend, for help texts."""
