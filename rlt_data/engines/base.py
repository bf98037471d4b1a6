"""What a generation engine is: requests in, completions out as they finish."""

from __future__ import annotations

import queue
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import pydantic

from rlt_data.errors import UsageError
from rlt_data.hashing import hash_content

Item = TypeVar("Item")
EngineName = Literal["auto", "transformers", "vllm", "openai"]
FinishReason = Literal["stop", "end", "length", "partial"]

WAIT_SECONDS = 1.0
"""How often the caller of an engine gets a moment while nothing is finished."""


@dataclass(frozen=True)
class GenerationRequest:
    """One text to continue. `key` names it in the answer; `seed` alone decides its random draws.

    `messages` is the same conversation as role and content, for an engine that cannot continue a text.
    """

    key: str
    prompt: str
    seed: int
    messages: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class SamplingParameters:
    """How to sample: temperature 0 is greedy, top_p 1 and top_k 0 are off; `stop` texts end a completion."""

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completion:
    """One finished text.

    `text` is the raw completion: up to and including the stop text where there was one (`stop`), without
    the end token (`end`), cut off by the limit (`length`) or by the server (`partial`). `token_ids` are
    all sampled tokens in order, the end token included; they are the shortest whose text holds the stop
    text, and the last of them may reach beyond it. `logprobs` holds the log-probability of each (nats), as
    `Engine.logprob_mode` says. A server may leave out either, and the counts; `completion_tokens` is then
    what it says, else the number of `token_ids`.
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
        """Sampled tokens, or None where a server does not say."""
        return self.completion_tokens if self.token_ids is None else len(self.token_ids)


@dataclass(frozen=True)
class FailedRequest:
    """One request that cannot be answered: a short code such as `over_context`, and a sentence."""

    key: str
    reason: str
    detail: str


class Engine(Protocol):
    """A source of completions. One engine holds one model.

    `version` names the software, such as `transformers 5.17.0`; `logprob_mode` is `processed` (under the
    sampling temperature, over the whole vocabulary), `nucleus` (the same, over the tokens that top-p and
    top-k keep) or `raw` (temperature 1); `dtype` is that of the forward pass. `prefills` is False where it
    needs `GenerationRequest.messages`, because it cannot continue a prompt. `notes` are sentences and
    `figures` numbers for the summary. All of them hold from the first answer on.
    """

    name: str
    version: str
    logprob_mode: str
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
        """Answer every request once, in any order, as each is finished; closing this drops the rest.

        `on_wait` is called about once a second while nothing is finished: what came before can be put away.
        """
        ...

    def close(self) -> None:
        """Free the model and what runs it."""
        ...


class EngineOptions(pydantic.BaseModel):
    """How an engine runs. Nothing here changes what a request's answer is meant to be, but for those options
    of vLLM's that change the model (`rlt_data.engines.vllm.options.MODEL_OPTIONS`).
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    dtype: str = "auto"
    device: str = "auto"
    max_batch_tokens: int | None = pydantic.Field(None, ge=1, description="Tokens held at once.")
    max_batch_rows: int | None = pydantic.Field(None, ge=1, description="Texts written at once.")
    extra: Mapping[str, Any] = pydantic.Field(
        default_factory=dict, description="Options of the engine itself, passed through."
    )


def wait_for(inbox: queue.SimpleQueue[Item], on_wait: Callable[[], None] | None) -> Item:
    """Take the next item of a queue; `on_wait` is called about once a second until there is one."""
    while True:
        try:
            return inbox.get(timeout=WAIT_SECONDS if on_wait is not None else None)
        except queue.Empty:
            if on_wait is not None:
                on_wait()


def derive_sample_seed(seed: int, question_id: str, sample_index: int) -> int:
    """Derive the seed of one sample (52 bits) from the generation's seed, whatever the batch order."""
    return int(hash_content("sample-seed", seed, question_id, sample_index)[:13], 16)


def explain_over_context(prompt_tokens: int, max_tokens: int, context: int) -> str | None:
    """Do the arithmetic of one request: None where it fits, else a sentence with the numbers."""
    if prompt_tokens + max_tokens <= context:
        return None
    return (
        f"prompt {prompt_tokens} tokens + max_tokens {max_tokens} = {prompt_tokens + max_tokens}, "
        f"more than the model's context of {context}; "
        f"max_tokens may be at most {max(0, context - prompt_tokens)}"
    )


def check_max_tokens(max_tokens: int, context: int | None) -> None:
    """Refuse a max_tokens that leaves no room for any prompt, before work starts. Raises `UsageError`."""
    if context is not None and max_tokens >= context:
        raise UsageError(
            f"max_tokens {max_tokens} leaves no room for a prompt: the model's context is {context} tokens",
            where="max_tokens",
            remedy=f"set max_tokens below {context} minus the length of the prompts",
        )
