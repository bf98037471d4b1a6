"""Generation by vLLM on this machine: continuous batching over every request that is left."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from rlt_data.engines.base import (
    Completion,
    EngineOptions,
    FailedRequest,
    GenerationRequest,
    LogprobMode,
    SamplingParameters,
)
from rlt_data.engines.vllm.availability import require_vllm
from rlt_data.engines.vllm.messages import EngineSetup, Item, Purpose
from rlt_data.engines.vllm.process import HostProcess
from rlt_data.errors import UsageError
from rlt_data.models.config import read_model_config
from rlt_data.models.identity import ModelIdentity

_REQUESTS_PER_ROW = 4


class VllmEngine:
    """An engine over vLLM, started when it is first used, in a process that ends when ours does.

    vLLM always holds a few times more requests than run at once, so that no row of a batch is empty while
    there is work. Samples of one question should come one after another: they then share the cached keys
    and values of their prompt.

    Raises `MissingExtraError` without vLLM, `UsageError` where options or context do not fit, and
    `EngineError` where the engine dies.
    """

    name = "vllm"
    prefills = True

    def __init__(
        self, identity: ModelIdentity, options: EngineOptions, *, log_path: Path | None = None
    ) -> None:
        self.version = f"vllm {require_vllm()}"
        if options.max_batch_tokens is not None:
            raise UsageError(
                "max_batch_tokens does not apply to vLLM, which fills its own cache",
                where="max_batch_tokens",
                remedy="limit a step by the engine option max_num_batched_tokens, the cache by "
                "gpu_memory_utilization or kv_cache_memory_bytes",
            )
        self._setup = build_setup(identity, options)
        self.dtype = self._setup["dtype"]
        self._log_path = log_path
        self._host: HostProcess | None = None
        self.logprob_mode: LogprobMode = "processed"
        self._prompt_tokens = 0
        self._cached_tokens = 0

    @property
    def notes(self) -> list[str]:
        """No notes; the figures hold everything."""
        return []

    @property
    def figures(self) -> dict[str, float]:
        """Seconds that vLLM took to start, and the share of prompt tokens that its prefix cache held."""
        if self._host is None or not self._prompt_tokens:
            return {}
        return {
            "engine_start_seconds": self._host.start_seconds,
            "prefix_cache_share": self._cached_tokens / self._prompt_tokens,
        }

    def generate(
        self,
        requests: Iterable[GenerationRequest],
        sampling: SamplingParameters,
        *,
        on_wait: Callable[[], None] | None = None,
    ) -> Generator[Completion | FailedRequest, None, None]:
        """Answer every request once, each as soon as it is finished, in no fixed order."""
        if self._host is None:
            self._host = HostProcess(self._setup, log_path=self._log_path)
        # The first request loads a tokenizer, which takes a while: vLLM starts in the meantime.
        source = iter(requests)
        first = next(source, None)
        host = self.start()
        # vLLM takes processed log-probabilities after top-p and top-k.
        self.logprob_mode = "nucleus" if sampling.top_p < 1 or sampling.top_k else "processed"
        return self._generate(host, itertools.chain([first] if first else [], source), sampling, on_wait)

    def start(self) -> HostProcess:
        """Start vLLM unless it is running, and wait until it is ready."""
        if self._host is None:
            self._host = HostProcess(self._setup, log_path=self._log_path)
        facts = self._host.await_ready()
        self.dtype = "+".join(filter(None, (facts["dtype"], facts["quantization"])))
        return self._host

    def close(self) -> None:
        """End vLLM and free its memory."""
        if self._host is not None:
            self._host.close()
            self._host = None

    def _generate(
        self,
        host: HostProcess,
        requests: Iterator[GenerationRequest],
        sampling: SamplingParameters,
        on_wait: Callable[[], None] | None,
    ) -> Generator[Completion | FailedRequest, None, None]:
        answers = host.exchange(
            "requests",
            "requests",
            ([request.key, request.prompt, request.seed] for request in requests),
            limit=_REQUESTS_PER_ROW * host.await_ready()["rows"],
            on_wait=on_wait,
            sampling={
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "max_tokens": sampling.max_tokens,
                "stop": list(sampling.stop),
            },
        )
        with closing(answers):
            for item in answers:
                yield self._read_item(item)

    def _read_item(self, item: Item) -> Completion | FailedRequest:
        if len(item) == 3:
            return FailedRequest(*item)
        key, text, token_ids, logprobs, reason, prompt_tokens, cached_tokens = item
        self._prompt_tokens += prompt_tokens
        self._cached_tokens += cached_tokens or 0
        return Completion(key, text, tuple(token_ids), tuple(logprobs), reason, prompt_tokens)


def build_setup(
    identity: ModelIdentity,
    options: EngineOptions,
    *,
    purpose: Purpose = "generate",
    memory_bytes: int = 0,
) -> EngineSetup:
    """Build what the engine's process needs to start; dtype `auto` means that of the saved weights."""
    config = read_model_config(identity)
    adapter = identity.require_directory() if identity.base is not None else None
    directory = (identity.base or identity).require_directory()
    own_tokenizer = adapter is not None and (adapter / "tokenizer_config.json").is_file()
    return {
        "model": str(directory),
        "tokenizer": str(adapter if own_tokenizer else directory),
        "adapter": str(adapter) if adapter is not None else None,
        "dtype": (config.dtype or "auto") if options.dtype == "auto" else options.dtype,
        "device": options.device,
        "max_rows": options.max_batch_rows,
        "purpose": purpose,
        "context": config.context or 0,
        "vocabulary": config.vocabulary,
        "memory_bytes": memory_bytes,
        "options": dict(options.extra),
    }
