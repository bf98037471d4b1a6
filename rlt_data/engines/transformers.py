"""Generation by transformers on this machine: one sampling loop that is refilled as texts finish.

Prompts are read once each, however many samples are asked of them. Texts are then written one token a
step, all together; a text that finishes leaves its slot to the next request.
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
    SamplingParameters,
    check_max_tokens,
    explain_over_context,
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

LOOKAHEAD = 4096
PROMPT_TOKENS_AT_ONCE = 16384
CPU_CACHE_BYTES = 2 << 30
DEVICE_CACHE_SHARE = 0.6
DEFAULT_ROWS = {"cpu": 32}
DEFAULT_DEVICE_ROWS = 256
# A step of a smaller model is over before threads have met; on a busy machine their waiting costs fourfold.
THREADS_PAY_FROM = 3_000_000


@dataclass
class _Text:
    """One text: its request, its prompt, and what has been written so far."""

    request: GenerationRequest
    prompt: list[int]
    order: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def held(self) -> int:
        """Tokens whose keys and values are in the slot: all but the last."""
        return len(self.prompt) + len(self.token_ids) - 1

    @property
    def last_token(self) -> int:
        return self.token_ids[-1] if self.token_ids else self.prompt[-1]


class TransformersEngine:
    """An engine over a transformers causal language model.

    A completion depends on its request and the sampling parameters alone, up to the rounding of the
    device's arithmetic, not on batch order, batch size or neighbours.

    Raises `ModelError` where the model or its tokenizer cannot be loaded, `UsageError` for options that do
    not exist or a device that is not there.
    """

    name = "transformers"
    logprob_mode = "processed"
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

        A request whose prompt and `max_tokens` exceed the context fails as `over_context`. Raises
        `UsageError` where `max_tokens` leaves no room for any prompt.
        """
        check_max_tokens(sampling.max_tokens, self._config.context)
        reader = CompletionReader(self._tokenizer, sampling.stop)
        arrivals = enumerate(requests)
        waiting: list[_Text] = []
        active: list[_Text] = []
        cache = SlotCache(self._config.layers)
        drained = False
        told = time.monotonic()
        while True:
            if not drained and len(waiting) < self._max_rows:
                batch = list(itertools.islice(arrivals, LOOKAHEAD - len(waiting)))
                drained = not batch
                texts, failed = self._prepare(batch, sampling)
                yield from failed
                waiting = sorted(
                    [*waiting, *texts], key=lambda text: (len(text.prompt), text.prompt, -text.order)
                )
            with self._choose_threads():
                self._admit(waiting, active, cache, sampling.max_tokens)
            if not active:
                if drained:
                    return
                continue
            with self._choose_threads():
                completions = self._write_token(active, cache, sampling, reader)
            yield from completions
            if on_wait is not None and time.monotonic() - told >= WAIT_SECONDS:
                on_wait()
                told = time.monotonic()

    @property
    def notes(self) -> list[str]:
        """Why this engine was taken, where that needs saying."""
        return self._notes

    @property
    def figures(self) -> dict[str, float]:
        """No numbers of its own."""
        return {}

    def close(self) -> None:
        """Free the model."""
        del self._model
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    @contextmanager
    def _choose_threads(self) -> Iterator[None]:
        """Compute on one thread where the model is too small for more; the caller's number comes back."""
        before = torch.get_num_threads()
        if self.device == "cpu" and self._config.parameters < THREADS_PAY_FROM:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _load_model(self) -> Any:
        """Load with grouped attention, or with the model's own where torch's kernel cannot express it."""
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
    ) -> tuple[list[_Text], list[FailedRequest]]:
        """Tokenise requests; those that cannot be answered fail with the arithmetic."""
        texts: list[_Text] = []
        failed: list[FailedRequest] = []
        known: dict[str, list[int]] = {}
        for order, request in batch:
            if request.prompt not in known:
                encoded = self._tokenizer.backend_tokenizer.encode(request.prompt, add_special_tokens=False)
                known[request.prompt] = encoded.ids
            prompt = known[request.prompt]
            problem = None
            if self._config.context is not None:
                problem = explain_over_context(len(prompt), sampling.max_tokens, self._config.context)
            if not prompt:
                failed.append(FailedRequest(request.key, "empty_prompt", "the prompt has no tokens"))
            elif problem:
                failed.append(FailedRequest(request.key, "over_context", problem))
            else:
                texts.append(_Text(request, prompt, order))
        return texts, failed

    def _admit(self, waiting: list[_Text], active: list[_Text], cache: SlotCache, max_tokens: int) -> None:
        """Move texts from the end of `waiting`, the longest first, into free slots."""
        free = self._max_rows - len(active)
        # Reading a few prompts together is cheaper than one at a time, so wait until some slots are free.
        if not waiting or (active and free < min(len(waiting), max(1, self._max_rows // 8))):
            return
        admitted: list[_Text] = []
        longest = max((len(text.prompt) for text in active), default=0)
        while waiting and len(admitted) < free:
            extent = max(longest, len(waiting[-1].prompt)) + max_tokens
            count = len(active) + len(admitted) + 1
            if count > 1 and count * extent > self._max_tokens:
                break
            admitted.append(waiting.pop())
            longest = extent - max_tokens
        slots: dict[tuple[int, ...], list[int]] = {}
        for text in admitted:
            slots.setdefault(tuple(text.prompt), []).append(len(active))
            active.append(text)
        self._read_prompts(slots, cache)

    def _read_prompts(self, slots: dict[tuple[int, ...], list[int]], cache: SlotCache) -> None:
        """Compute keys and values of each prompt, its last token left to the first step, into its slots."""
        prompts = [prompt for prompt in slots if len(prompt) > 1]
        start = 0
        while start < len(prompts):
            width = len(prompts[start]) - 1
            together = prompts[start : start + max(1, PROMPT_TOKENS_AT_ONCE // width)]
            start += len(together)
            ids = torch.zeros((len(together), width), dtype=torch.int64)
            mask = torch.zeros((len(together), width), dtype=torch.int64)
            for row, prompt in enumerate(together):
                ids[row, : len(prompt) - 1] = torch.tensor(prompt[:-1])
                mask[row, : len(prompt) - 1] = 1
            prefilled = DynamicCache()
            with torch.inference_mode():
                self._model(
                    input_ids=ids.to(self.device),
                    attention_mask=mask.to(self.device),
                    position_ids=torch.arange(width, device=self.device).expand(len(together), -1),
                    past_key_values=prefilled,
                    use_cache=True,
                    logits_to_keep=1,
                )
                for row, prompt in enumerate(together):
                    cache.fill(slots[prompt], prefilled, row, len(prompt) - 1)

    def _write_token(
        self, active: list[_Text], cache: SlotCache, sampling: SamplingParameters, reader: CompletionReader
    ) -> list[Completion]:
        """Write one token for every active text; return those that it finishes and free their slots."""
        logits = self._run_step(active, cache)
        try:
            tokens, logprobs = sample_tokens(
                logits,
                [text.request.seed for text in active],
                [len(text.token_ids) for text in active],
                sampling,
            )
        except FloatingPointError as error:
            raise ModelError(
                f"{error} (dtype {self.dtype})", where=self._identity.model, remedy="use dtype float32"
            ) from error
        finished: list[int] = []
        completions: list[Completion] = []
        for slot, (text, token, logprob) in enumerate(zip(active, tokens, logprobs, strict=True)):
            text.token_ids.append(token)
            text.logprobs.append(logprob)
            completion = self._finish(text, sampling, reader)
            if completion:
                finished.append(slot)
                completions.append(completion)
        for slot in reversed(finished):
            last = active.pop()
            if slot < len(active):
                cache.move(len(active), slot, last.held)
                active[slot] = last
        return completions

    def _run_step(self, active: list[_Text], cache: SlotCache) -> torch.Tensor:
        """Run one token of every active text; returns logits `[rows, vocabulary]`."""
        cache.begin_step([text.held for text in active], self._model.device)
        columns = cache.columns
        mask = make_step_mask(self._model.config, columns, cache.width, self._model.dtype)
        with torch.inference_mode():
            output: Any = self._model(
                input_ids=torch.tensor([[text.last_token] for text in active], device=self.device),
                attention_mask=mask,
                position_ids=columns.unsqueeze(1),
                past_key_values=cache,
                use_cache=True,
            )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _finish(
        self, text: _Text, sampling: SamplingParameters, reader: CompletionReader
    ) -> Completion | None:
        """Make the completion if the text's last token ended it."""
        ended = text.token_ids[-1] in self._end_tokens
        full = len(text.token_ids) >= sampling.max_tokens
        if not ended and not full and not reader.ends_here(text.token_ids):
            return None
        written = text.token_ids[:-1] if ended else text.token_ids
        words, needed, stopped = reader.cut(written, text.prompt[-1])
        reason: FinishReason = "stop" if stopped else "end" if ended else "length"
        kept = needed if stopped else len(text.token_ids)
        return Completion(
            key=text.request.key,
            text=words,
            token_ids=tuple(text.token_ids[:kept]),
            logprobs=tuple(text.logprobs[:kept]),
            finish_reason=reason,
            prompt_tokens=len(text.prompt),
        )

    def _choose_token_budget(self) -> int:
        """Tokens whose keys and values fit the memory that is set aside for them."""
        element = torch.finfo(getattr(torch, self.dtype)).bits // 8
        if self.device.startswith("cuda"):
            room = int(torch.cuda.mem_get_info(self.device)[0] * DEVICE_CACHE_SHARE)
        else:
            room = CPU_CACHE_BYTES
        return max(1, room // self._config.count_cache_bytes(element))
