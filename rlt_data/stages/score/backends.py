"""Opening the scoring backend of a run: our own forward passes, vLLM on this machine, or a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from rlt_data.bounds import parse_memory
from rlt_data.models import ModelIdentity, resolve_model
from rlt_data.reward.backends.opening import BACKENDS, BackendSettings
from rlt_data.stages.score.config import ScoreConfig

if TYPE_CHECKING:
    from rlt_data.reward.backends.cache import BackendCache
    from rlt_data.reward.scoring.loading import ModelCache


def resolve_student(name: str, config: ScoreConfig) -> ModelIdentity:
    """Resolve a student. A served one needs its tokenizer on this machine; its revision is unknown.

    Raises `ModelError` as `resolve_model`.
    """
    if not BACKENDS[config.backend].served:
        return resolve_model(name, role="student")
    return replace(resolve_model(name, role="student", need="tokenizer"), revision=None)


def open_backends(
    config: ScoreConfig, local: ModelCache, dtype: str, notify: Callable[[str], None]
) -> BackendCache | None:
    """Open the backend; None for our own forward passes. `dtype` is that of local models.

    `notify` is called with a sentence where a backend must wait.
    """
    if BACKENDS[config.backend].open is None:
        return None
    from rlt_data.reward.backends.cache import BackendCache

    server = {"base_url": config.base_url} if config.base_url is not None else {}
    return BackendCache(
        config.backend,
        local,
        BackendSettings(
            dtype=dtype,
            device=config.device.partition(":")[0],
            memory=parse_memory(config.memory) if config.memory is not None else None,
            options={**config.backend_options, **server},
            notify=notify,
        ),
    )
