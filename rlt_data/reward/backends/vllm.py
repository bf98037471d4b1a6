"""Log-probabilities of given texts from vLLM on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from rlt_data.engines.base import EngineOptions
from rlt_data.engines.vllm.availability import require_vllm
from rlt_data.engines.vllm.engine import build_setup
from rlt_data.engines.vllm.process import HostProcess
from rlt_data.models import ModelIdentity, load_tokenizer
from rlt_data.reward.backends.base import BackendFailure
from rlt_data.reward.backends.temperature import check_scalable, write_scaled_copy

DEFAULT_MEMORY = 2 << 30
_TEXTS_IN_ENGINE = 256


class VllmBackend:
    """Scores texts by vLLM's `prompt_logprobs`, without prefix caching.

    vLLM ignores the temperature there, so it runs a copy of the model with the temperature divided into its
    weights. Steps are small enough for `[tokens, vocabulary]` to fit `memory_bytes`.

    Raises as `VllmEngine`, and `ModelError` where the temperature cannot be divided into the weights.
    """

    def __init__(
        self,
        identity: ModelIdentity,
        temperature: float,
        *,
        dtype: str,
        device: str = "auto",
        memory_bytes: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        require_vllm()
        check_scalable(identity, temperature)
        self.name = identity.name
        self.tokenizer = load_tokenizer(identity)
        setup = build_setup(
            identity,
            EngineOptions(dtype=dtype, device=device, extra=dict(options or {})),
            purpose="score",
            memory_bytes=memory_bytes or DEFAULT_MEMORY,
        )
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        if temperature != 1.0:
            self._copy = tempfile.TemporaryDirectory(prefix="rlt-data-scaled-")
            model = Path(setup["model"])
            setup["model"] = str(
                write_scaled_copy(model, Path(self._copy.name), temperature, dtype=setup["dtype"])
            )
        self._host = HostProcess(setup)
        try:
            facts = self._host.await_ready()
        except BaseException:
            self._drop_copy()
            raise
        # A prompt must leave room for the one token that vLLM always generates.
        self.context: int | None = facts["context"] - 1

    def score(
        self, texts: Iterable[tuple[str, list[int]]]
    ) -> Iterator[tuple[str, list[float] | BackendFailure]]:
        """Score texts, keeping vLLM busy; see `LogprobBackend`."""
        items = ([key, token_ids] for key, token_ids in texts)
        with closing(self._host.exchange("score", "texts", items, limit=_TEXTS_IN_ENGINE)) as answers:
            for key, *answer in answers:
                yield key, BackendFailure(*answer) if len(answer) == 2 else answer[0]

    def close(self) -> None:
        """Stop vLLM and delete the copy of the model."""
        self._host.close()
        self._drop_copy()

    def _drop_copy(self) -> None:
        if self._copy is not None:
            self._copy.cleanup()
