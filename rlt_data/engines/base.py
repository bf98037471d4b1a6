"""The interface of generation engines: requests in, completions out as they finish."""

from __future__ import annotations

import queue
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import pydantic

from rlt_data.bounds import STRICT, Count, Tokens
from rlt_data.hashing import hash_content

Item = TypeVar("Item")
FinishReason = Literal["stop", "end", "length", "partial"]
LogprobMode = Literal["processed", "nucleus", "raw", "none"]

WAIT_SECONDS = 1.0
"""Interval at which `on_wait` is called while nothing is finished."""


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt to continue. The answer carries its `key`; `seed` alone determines its random draws.

    `messages` holds the same conversation as (role, content), for an engine that cannot continue a prompt.
    """

    key: str
    prompt: str
    seed: int
    messages: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class SamplingParameters:
    """How to sample. Temperature 0 is greedy; top_p 1 and top_k 0 are off; `stop` texts end a completion.

    A completion has at most `max_tokens` tokens, and no more than the context leaves beside its prompt.
    """

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completion:
    """One finished completion.

    `text` is the raw text. By `finish_reason`, it ends with the stop text (`stop`), ended at the end token,
    which it does not contain (`end`), or was truncated by the limit (`length`) or by the server (`partial`).
    `token_ids` are all sampled tokens in order, including the end token: the shortest sequence whose text
    contains the stop text, whose last token may extend beyond it. `logprobs` holds the log-probability of
    each token in nats (see `Engine.logprob_mode`). A server may omit both, and the token counts;
    `completion_tokens` is the server's own count, used where there are no `token_ids`.
    """

    key: str
    text: str
    token_ids: tuple[int, ...] | None
    logprobs: tuple[float, ...] | None
    finish_reason: FinishReason
    prompt_tokens: int | None
    completion_tokens: int | None = None

    @property
    def token_count(self) -> int | None:
        """Number of sampled tokens, or None where a server does not report it."""
        return self.completion_tokens if self.token_ids is None else len(self.token_ids)


@dataclass(frozen=True)
class FailedRequest:
    """One request that failed for good: a short code such as `over_context`, and a sentence."""

    key: str
    reason: str
    detail: str


class Engine(Protocol):
    """Generates completions with one model.

    `version` names the software, such as `transformers 5.17.0`. `logprob_mode` is `processed` (under the
    sampling temperature, over the whole vocabulary), `nucleus` (the same, over the tokens that top-p and
    top-k keep), `raw` (temperature 1) or `none`. `dtype` is that of the forward pass. `prefills` is False
    for an engine that cannot continue a prompt and needs `GenerationRequest.messages`. All of them, `notes`
    and `figures` included, are final once the first answer has arrived.
    """

    name: str
    version: str
    logprob_mode: LogprobMode
    dtype: str
    prefills: bool

    @property
    def notes(self) -> list[str]:
        """Sentences for the stage's summary."""
        ...

    @property
    def figures(self) -> dict[str, float]:
        """Numbers for the stage's summary."""
        ...

    def generate(
        self,
        requests: Iterable[GenerationRequest],
        sampling: SamplingParameters,
        *,
        on_wait: Callable[[], None] | None = None,
    ) -> Generator[Completion | FailedRequest, None, None]:
        """Answer every request once, in any order, each as soon as it is finished.

        Closing the generator drops the rest. `on_wait` is called about once a second while nothing is
        finished, so that the caller can store earlier answers.
        """
        ...

    def close(self) -> None:
        """Free the model and end the processes that run it."""
        ...


class EngineOptions(pydantic.BaseModel):
    """How an engine runs.

    None of these options changes the distribution that is sampled from, except those options of vLLM that
    change the model (`rlt_data.engines.vllm.options.MODEL_OPTIONS`).
    """

    model_config = STRICT

    dtype: str = "auto"
    device: str = "auto"
    max_batch_tokens: Tokens | None = pydantic.Field(None, description="Tokens in one batch.")
    max_batch_rows: Count | None = pydantic.Field(None, description="Texts in one batch.")
    extra: Mapping[str, Any] = pydantic.Field(default_factory=dict, description="The engine's own options.")
    notify: Callable[[str], None] | None = pydantic.Field(
        None, exclude=True, repr=False, description="Called with a sentence where the engine must wait."
    )


def wait_for(inbox: queue.SimpleQueue[Item], on_wait: Callable[[], None] | None) -> Item:
    """Wait for the next item of a queue, calling `on_wait` about once a second."""
    while True:
        try:
            return inbox.get(timeout=WAIT_SECONDS if on_wait is not None else None)
        except queue.Empty:
            if on_wait is not None:
                on_wait()


def derive_sample_seed(seed: int, question_id: str, sample_index: int) -> int:
    """Derive the seed of one sample (52 bits) from the generation's seed, independently of batch order."""
    return int(hash_content("sample-seed", seed, question_id, sample_index)[:13], 16)


def fit_max_tokens(prompt_tokens: int, max_tokens: int, context: int | None) -> int:
    """Return how many tokens a completion may have: `max_tokens`, or what the context leaves of them.

    0 where the prompt alone fills the context; None as context means that there is no limit.
    """
    return max_tokens if context is None else max(0, min(max_tokens, context - prompt_tokens))


def explain_over_context(prompt_tokens: int, context: int | None) -> str:
    """Explain why a prompt that leaves no room for a completion cannot be answered."""
    return f"the prompt has {prompt_tokens} tokens, which leaves no room in the model's context of {context}"
