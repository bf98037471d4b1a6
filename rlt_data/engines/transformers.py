"""Generation by transformers on this machine: one sampling loop with continuous batching.

Each distinct prompt is prefilled once, however many samples are requested of it. All running sequences
then get one token per step; a sequence that finishes frees its slot for the next request.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers.cache_utils import DynamicCache

from rlt_data.engines.base import (
    WAIT_SECONDS,
    Completion,
    EngineOptions,
    FailedRequest,
    FinishReason,
    GenerationRequest,
    LogprobMode,
    SamplingParameters,
    explain_over_context,
    fit_max_tokens,
)
from rlt_data.engines.sampling import sample_tokens
from rlt_data.engines.slots import (
    SlotCache,
    explain_unsupported_layers,
    make_step_mask,
    use_grouped_attention,
)
from rlt_data.engines.stopping import CompletionReader
from rlt_data.errors import ModelError, UsageError
from rlt_data.models.config import read_model_config
from rlt_data.models.identity import ModelIdentity
from rlt_data.models.loading import choose_device, choose_dtype, load_model, load_tokenizer
from rlt_data.models.tokenizer_check import find_token_without_embedding

LOOKAHEAD = 4096
PROMPT_TOKENS_AT_ONCE = 16384
CPU_CACHE_BYTES = 2 << 30
DEVICE_CACHE_SHARE = 0.6
DEFAULT_ROWS = {"cpu": 32}
DEFAULT_DEVICE_ROWS = 256
# For smaller models, synchronizing threads costs more than they save: up to fourfold on a busy machine.
THREADS_PAY_FROM = 3_000_000


@dataclass
class _Sequence:
    """One sequence: its request, the token ids of its prompt, and the tokens sampled so far.

    `max_tokens` is how many it may have.
    """

    request: GenerationRequest
    prompt: list[int]
    order: int
    max_tokens: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def held(self) -> int:
        """Number of tokens whose keys and values are in the slot: all but the last."""
        return len(self.prompt) + len(self.token_ids) - 1

    @property
    def last_token(self) -> int:
        return self.token_ids[-1] if self.token_ids else self.prompt[-1]


class TransformersEngine:
    """An engine over a transformers causal language model.

    A completion depends only on its request and the sampling parameters, up to the rounding of the device's
    arithmetic, not on batch order, batch size or other requests. `notes` are for the summary.

    Raises `ModelError` where the model or its tokenizer cannot be loaded, `UsageError` for unknown options or
    a device that is not available.
    """

    name = "transformers"
    logprob_mode: LogprobMode = "processed"
    prefills = True

    def __init__(self, identity: ModelIdentity, options: EngineOptions, *, notes: Sequence[str] = ()) -> None:
        self._notes = list(notes)
        if options.extra:
            raise UsageError(
                f"the transformers engine has no option {sorted(options.extra)[0]!r}",
                remedy="its options are dtype, device, max_batch_tokens and max_batch_rows",
            )
        self.version = f"transformers {transformers.__version__}"
        self.device = choose_device(options.device)
        self.dtype = choose_dtype(options.dtype, self.device)
        self._identity = identity
        self._config = read_model_config(identity)
        self._tokenizer = load_tokenizer(identity)
        self._model = self._load_model()
        self._end_tokens = {*self._config.end_token_ids, self._tokenizer.eos_token_id} - {None}
        self._max_rows = options.max_batch_rows or DEFAULT_ROWS.get(self.device, DEFAULT_DEVICE_ROWS)
        self._max_tokens = options.max_batch_tokens or self._choose_token_budget()

    def generate(
        self,
        requests: Iterable[GenerationRequest],
        sampling: SamplingParameters,
        *,
        on_wait: Callable[[], None] | None = None,
    ) -> Generator[Completion | FailedRequest, None, None]:
        """Answer every request once, each as soon as it is finished.

        A request whose prompt fills the context fails as `over_context`.
        """
        reader = CompletionReader(self._tokenizer, sampling.stop)
        arrivals = enumerate(requests)
        waiting: list[_Sequence] = []
        running: list[_Sequence] = []
        cache = SlotCache(self._config.layers)
        exhausted = False
        last_wait = time.monotonic()
        while True:
            if not exhausted and len(waiting) < self._max_rows:
                batch = list(itertools.islice(arrivals, LOOKAHEAD - len(waiting)))
                exhausted = not batch
                prepared, failed = self._prepare(batch, sampling)
                yield from failed
                waiting = sorted(
                    [*waiting, *prepared],
                    key=lambda sequence: (len(sequence.prompt), sequence.prompt, -sequence.order),
                )
            with self._choose_threads():
                self._admit(waiting, running, cache, sampling.max_tokens)
            if not running:
                if exhausted:
                    return
                continue
            with self._choose_threads():
                completions = self._sample_step(running, cache, sampling, reader)
            yield from completions
            if on_wait is not None and time.monotonic() - last_wait >= WAIT_SECONDS:
                on_wait()
                last_wait = time.monotonic()

    @property
    def notes(self) -> list[str]:
        """Why `auto` chose this engine, where a summary should explain it."""
        return self._notes

    @property
    def figures(self) -> dict[str, float]:
        """No figures."""
        return {}

    def close(self) -> None:
        """Free the model."""
        del self._model
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    @contextmanager
    def _choose_threads(self) -> Iterator[None]:
        """Compute on one thread where the model is too small for more; restores the caller's setting."""
        before = torch.get_num_threads()
        if self.device == "cpu" and self._config.parameters < THREADS_PAY_FROM:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _load_model(self) -> Any:
        """Load with grouped attention, or eager attention where torch's kernel cannot be used."""
        eager = bool(self._config.raw.get("attn_logit_softcapping"))
        try:
            attention = "eager" if eager else "sdpa"
            model = load_model(self._identity, dtype=self.dtype, device=self.device, attention=attention)
        except ModelError as error:
            if "scaled_dot_product_attention" not in error.what:
                raise
            model = load_model(self._identity, dtype=self.dtype, device=self.device, attention="eager")
        problem = explain_unsupported_layers(model)
        if problem:
            raise ModelError(
                f"the transformers engine cannot run this model: {problem}",
                where=self._identity.model,
                remedy="use --engine vllm",
            )
        use_grouped_attention(model)
        return model

    def _prepare(
        self, batch: list[tuple[int, GenerationRequest]], sampling: SamplingParameters
    ) -> tuple[list[_Sequence], list[FailedRequest]]:
        """Tokenize the prompts of numbered requests; those that cannot be answered fail."""
        sequences: list[_Sequence] = []
        failed: list[FailedRequest] = []
        encoded: dict[str, list[int]] = {}
        for order, request in batch:
            if request.prompt not in encoded:
                encoded[request.prompt] = self._tokenizer.backend_tokenizer.encode(
                    request.prompt, add_special_tokens=False
                ).ids
            prompt = encoded[request.prompt]
            room = fit_max_tokens(len(prompt), sampling.max_tokens, self._config.context)
            unknown = find_token_without_embedding(self._tokenizer, prompt)
            if not prompt:
                failed.append(FailedRequest(request.key, "empty_prompt", "the prompt has no tokens"))
            elif unknown is not None:
                detail = f"the prompt contains {unknown!r}, for which the model has no embedding"
                failed.append(FailedRequest(request.key, "token_without_embedding", detail))
            elif not room:
                detail = explain_over_context(len(prompt), self._config.context)
                failed.append(FailedRequest(request.key, "over_context", detail))
            else:
                sequences.append(_Sequence(request, prompt, order, room))
        return sequences, failed

    def _admit(
        self, waiting: list[_Sequence], running: list[_Sequence], cache: SlotCache, max_tokens: int
    ) -> None:
        """Move sequences from the end of `waiting`, the longest first, into free slots."""
        free = self._max_rows - len(running)
        # Prefilling a few prompts together is cheaper than one at a time, so wait until some slots are free.
        if not waiting or (running and free < min(len(waiting), max(1, self._max_rows // 8))):
            return
        admitted: list[_Sequence] = []
        longest = max((len(sequence.prompt) for sequence in running), default=0)
        while waiting and len(admitted) < free:
            longer = max(longest, len(waiting[-1].prompt))
            extent = min(longer + max_tokens, self._config.context or longer + max_tokens)
            count = len(running) + len(admitted) + 1
            if count > 1 and count * extent > self._max_tokens:
                break
            admitted.append(waiting.pop())
            longest = longer
        slots: dict[tuple[int, ...], list[int]] = {}
        for sequence in admitted:
            slots.setdefault(tuple(sequence.prompt), []).append(len(running))
            running.append(sequence)
        self._prefill(slots, cache)

    def _prefill(self, slots: dict[tuple[int, ...], list[int]], cache: SlotCache) -> None:
        """Compute keys and values of each prompt into its slots; its last token is left to the first step."""
        prompts = [prompt for prompt in slots if len(prompt) > 1]
        start = 0
        while start < len(prompts):
            width = len(prompts[start]) - 1
            batch = prompts[start : start + max(1, PROMPT_TOKENS_AT_ONCE // width)]
            start += len(batch)
            ids = torch.zeros((len(batch), width), dtype=torch.int64)
            mask = torch.zeros((len(batch), width), dtype=torch.int64)
            for row, prompt in enumerate(batch):
                ids[row, : len(prompt) - 1] = torch.tensor(prompt[:-1])
                mask[row, : len(prompt) - 1] = 1
            prefilled = DynamicCache()
            with torch.inference_mode():
                self._model(
                    input_ids=ids.to(self.device),
                    attention_mask=mask.to(self.device),
                    position_ids=torch.arange(width, device=self.device).expand(len(batch), -1),
                    past_key_values=prefilled,
                    use_cache=True,
                    logits_to_keep=1,
                )
                for row, prompt in enumerate(batch):
                    cache.fill(slots[prompt], prefilled, row, len(prompt) - 1)

    def _sample_step(
        self,
        running: list[_Sequence],
        cache: SlotCache,
        sampling: SamplingParameters,
        reader: CompletionReader,
    ) -> list[Completion]:
        """Sample one token for every running sequence; return those that finish and free their slots."""
        logits = self._forward(running, cache)
        try:
            tokens, logprobs = sample_tokens(
                logits,
                [sequence.request.seed for sequence in running],
                [len(sequence.token_ids) for sequence in running],
                sampling,
            )
        except FloatingPointError as error:
            raise ModelError(
                f"{error} (dtype {self.dtype})", where=self._identity.model, remedy="use dtype float32"
            ) from error
        finished: list[int] = []
        completions: list[Completion] = []
        for slot, (sequence, token, logprob) in enumerate(zip(running, tokens, logprobs, strict=True)):
            sequence.token_ids.append(token)
            sequence.logprobs.append(logprob)
            completion = self._finish(sequence, reader)
            if completion:
                finished.append(slot)
                completions.append(completion)
        for slot in reversed(finished):
            last = running.pop()
            if slot < len(running):
                cache.move(len(running), slot, last.held)
                running[slot] = last
        return completions

    def _forward(self, running: list[_Sequence], cache: SlotCache) -> torch.Tensor:
        """Run the model on the last token of every running sequence; returns logits `[rows, vocabulary]`."""
        cache.begin_step([sequence.held for sequence in running], self._model.device)
        columns = cache.columns
        mask = make_step_mask(self._model.config, columns, cache.width, self._model.dtype)
        with torch.inference_mode():
            output: Any = self._model(
                input_ids=torch.tensor([[sequence.last_token] for sequence in running], device=self.device),
                attention_mask=mask,
                position_ids=columns.unsqueeze(1),
                past_key_values=cache,
                use_cache=True,
            )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _finish(self, sequence: _Sequence, reader: CompletionReader) -> Completion | None:
        """Make the completion if the sequence's last token ended it."""
        token_ids = sequence.token_ids
        ended = token_ids[-1] in self._end_tokens
        full = len(token_ids) >= sequence.max_tokens
        if not ended and not full and not reader.ends_here(token_ids):
            return None
        content = token_ids[:-1] if ended else token_ids
        text, needed, stopped = reader.truncate(content, sequence.prompt[-1])
        reason: FinishReason = "stop" if stopped else "end" if ended else "length"
        kept = needed if stopped else len(token_ids)
        return Completion(
            key=sequence.request.key,
            text=text,
            token_ids=tuple(token_ids[:kept]),
            logprobs=tuple(sequence.logprobs[:kept]),
            finish_reason=reason,
            prompt_tokens=len(sequence.prompt),
        )

    def _choose_token_budget(self) -> int:
        """Return how many tokens' keys and values fit the memory reserved for them."""
        element = torch.finfo(getattr(torch, self.dtype)).bits // 8
        if self.device.startswith("cuda"):
            available = int(torch.cuda.mem_get_info(self.device)[0] * DEVICE_CACHE_SHARE)
        else:
            available = CPU_CACHE_BYTES
        return max(1, available // self._config.count_cache_bytes(element))
