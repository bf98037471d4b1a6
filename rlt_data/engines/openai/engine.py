"""Generation by any server that speaks the OpenAI protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable, Iterator
from urllib.parse import urlsplit

from rlt_data.engines.base import (
    Completion,
    EngineOptions,
    FailedRequest,
    GenerationRequest,
    SamplingParameters,
    check_max_tokens,
    explain_over_context,
)
from rlt_data.engines.openai.client import RequestFailedError, ServerClient
from rlt_data.engines.openai.options import ServerOptions, read_server_options
from rlt_data.engines.openai.protocol import (
    ServerTraits,
    UnreadableAnswerError,
    build_body,
    build_probe,
    read_answer,
    read_top_logprob,
)
from rlt_data.engines.openai.worker import RequestWorker
from rlt_data.errors import EngineError, UsageError
from rlt_data.models.identity import ModelIdentity

ENDPOINTS = {"completions": "completions", "chat": "chat/completions"}
_MISSING_ENDPOINT = (404, 405, 501)
_OVER_CONTEXT = (
    "context length", "context_length", "context size", "context_size", "maximum context", "max_model_len",
    "too long",
)  # fmt: skip
_SAME_LOGPROB = 0.01


class OpenAIEngine:
    """An engine over a server: bounded concurrency, retries, nothing lost.

    Opening it waits for the server and asks it what it can do: which endpoint, which log-probabilities.
    On `/v1/completions` rendered prompts are continued exactly; where a server has chat alone, `prefills`
    is False and the teacher's turn cannot be begun for it.

    Raises `UsageError` for options that make no sense or a model that is not served, `EngineError` where
    the server is not ready in time, goes away, or refuses access.
    """

    name = "openai"

    def __init__(self, identity: ModelIdentity, options: EngineOptions) -> None:
        self._options = read_server_options(options.extra)
        self.traits, server = asyncio.run(explore_server(self._options, identity))
        self.version = f"openai ({server})"
        self.logprob_mode = self.traits.logprob_mode or "none"
        self.dtype = "unknown"
        self.prefills = self.traits.api == "completions"
        self.tries = 0
        self._answers = 0
        self._unsure = 0

    @property
    def notes(self) -> list[str]:
        """What a summary should say about this engine's work so far."""
        notes = []
        if not self.prefills:
            notes.append(
                "over chat completions the teacher's turn could not be prefilled: the solution and the "
                "opened explanation stood in its instructions, and it wrote both itself"
            )
        if self.traits.logprob_mode is None:
            notes.append("the server sends no log-probabilities: scoring will run the teacher itself")
        elif self.traits.logprob_mode == "raw":
            notes.append("the server's log-probabilities are raw, not under the sampling temperature")
        if self._unsure:
            notes.append(
                f"for {self._unsure} of {self._answers} answers the server did not say whether the closing "
                "tag or the end token ended them; they are taken to be closed"
            )
        return notes

    @property
    def figures(self) -> dict[str, float]:
        """How many requests were sent, repeated ones included."""
        return {"requests_sent": self.tries}

    def generate(
        self,
        requests: Iterable[GenerationRequest],
        sampling: SamplingParameters,
        *,
        on_wait: Callable[[], None] | None = None,
    ) -> Generator[Completion | FailedRequest, None, None]:
        """Answer every request once, each as soon as it is finished, in no fixed order."""
        check_max_tokens(sampling.max_tokens, self.traits.context)
        if self.traits.logprob_mode == "processed" and (sampling.top_p < 1 or sampling.top_k):
            self.logprob_mode = "nucleus"
        return self._generate(iter(requests), sampling, on_wait)

    def close(self) -> None:
        """Nothing is held between calls."""

    def _generate(
        self,
        requests: Iterator[GenerationRequest],
        sampling: SamplingParameters,
        on_wait: Callable[[], None] | None,
    ) -> Generator[Completion | FailedRequest, None, None]:
        async def answer(client: ServerClient, request: GenerationRequest) -> Completion | FailedRequest:
            return await self._answer(client, request, sampling)

        worker = RequestWorker(self._options, answer)
        sent_before = self.tries
        for result in worker.answer_all(requests, on_wait):
            self._answers += 1
            self.tries = sent_before + worker.tries
            yield result

    async def _answer(
        self, client: ServerClient, request: GenerationRequest, sampling: SamplingParameters
    ) -> Completion | FailedRequest:
        body = build_body(self.traits, request, sampling)
        try:
            found = await client.post(ENDPOINTS[self.traits.api], body)
            answer = read_answer(found, request, sampling, self.traits)
        except RequestFailedError as error:
            reason = await settle_failure(client, self.traits, error)
            return FailedRequest(request.key, reason, error.detail)
        except UnreadableAnswerError as error:
            return FailedRequest(request.key, "invalid_answer", str(error))
        self._unsure += not answer.ending_known
        return self._check_room(answer.completion, sampling)

    def _check_room(self, completion: Completion, sampling: SamplingParameters) -> Completion | FailedRequest:
        """Hold a server that silently lowers max_tokens to the rule of the other engines."""
        prompt, context = completion.prompt_tokens, self.traits.context
        if prompt is None or context is None:
            return completion
        problem = explain_over_context(prompt, sampling.max_tokens, context)
        return FailedRequest(completion.key, "over_context", problem) if problem else completion


async def settle_failure(client: ServerClient, traits: ServerTraits, error: RequestFailedError) -> str:
    """Name the failure of a request: `over_context` where the server says so in its own words.

    Raises `EngineError` where the server does not answer at all any more: the request may be in order.
    """
    words = error.detail.lower()
    if error.status in (400, 413, 422) and any(phrase in words for phrase in _OVER_CONTEXT):
        return "over_context"
    probe = build_probe(traits.model, traits.api, 1.0, logprobs=False, is_vllm=traits.is_vllm)
    await client.confirm_works(ENDPOINTS[traits.api], probe, error)
    return error.reason


async def explore_server(options: ServerOptions, identity: ModelIdentity) -> tuple[ServerTraits, str]:
    """Wait for the server, and find out by what name it serves a model and what it can do.

    Raises `UsageError` where it does not serve the model or does not answer on the endpoint asked for,
    `EngineError` where it is not ready in time or refuses access.
    """
    async with ServerClient(options) as client:
        model, entry = _find_model(await client.get_models(), identity, options)
        is_vllm = entry.get("owned_by") == "vllm"
        apis = ["completions", "chat"] if options.api == "auto" else [options.api]
        for api in apis:
            try:
                mode = await _probe_logprobs(client, model, api, is_vllm=is_vllm)
            except RequestFailedError as error:
                if error.status is None:
                    # It has the endpoint, and fails on it: another one would lose the prefill for nothing.
                    raise EngineError(
                        f"the server fails on /{ENDPOINTS[api]}: {error.detail}", where=options.base_url
                    ) from error
                if api != apis[-1]:
                    continue
                raise UsageError(
                    f"the server does not answer on /{ENDPOINTS[api]}: {error.detail}",
                    where=options.base_url,
                    remedy="check the address (it ends in /v1 as a rule) and the model's name",
                ) from error
            context = entry.get("max_model_len")
            traits = ServerTraits(
                api="chat" if api == "chat" else "completions",
                logprob_mode=mode,
                is_vllm=is_vllm,
                context=context if isinstance(context, int) else None,
                model=model,
            )
            return traits, "vllm" if is_vllm else urlsplit(options.base_url).netloc
    raise EngineError("the server has no endpoint for completions", where=options.base_url)


def _find_model(
    models: list[dict[str, object]], identity: ModelIdentity, options: ServerOptions
) -> tuple[str, dict[str, object]]:
    """Find the model in the server's list, by what its name means or as it was written.

    A server without a list is believed.
    """
    names = [options.served_model] if options.served_model else [identity.model, identity.name]
    served = {str(entry.get("id")): entry for entry in models}
    found = next((name for name in names if name in served), None)
    if found is None and served:
        raise UsageError(
            f"the server does not serve {names[0]!r}",
            where=options.base_url,
            remedy=f"it serves {', '.join(sorted(served))}: set served_model to one of these "
            "(--engine-option served_model=NAME)",
        )
    return found or names[0], served.get(found or "", {})


async def _probe_logprobs(client: ServerClient, model: str, api: str, *, is_vllm: bool) -> str | None:
    """Ask for one token at two temperatures: do log-probabilities come, and do they change with it?"""
    found = []
    for temperature in (0.5, 1.0):
        probe = build_probe(model, api, temperature, logprobs=True, is_vllm=is_vllm)
        try:
            answer = await client.post(ENDPOINTS[api], probe)
        except RequestFailedError as error:
            if error.status is None or error.status in _MISSING_ENDPOINT:
                raise
            plain = build_probe(model, api, temperature, logprobs=False, is_vllm=is_vllm)
            await client.post(ENDPOINTS[api], plain)
            return None
        found.append(read_top_logprob(answer))
    if found[0] is None or found[1] is None:
        return None
    return "processed" if abs(found[0] - found[1]) > _SAME_LOGPROB else "raw"
