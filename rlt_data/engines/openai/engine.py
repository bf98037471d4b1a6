"""Generation by any server that speaks the OpenAI protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, assert_never

from rlt_data.engines.base import (
    Completion,
    EngineOptions,
    FailedRequest,
    GenerationRequest,
    LogprobMode,
    SamplingParameters,
    fit_max_tokens,
)
from rlt_data.engines.openai.client import RequestFailedError, ServerClient
from rlt_data.engines.openai.options import read_server_options
from rlt_data.engines.openai.protocol import (
    UnreadableAnswerError,
    build_body,
    read_answer,
    read_prompt_tokens,
)
from rlt_data.engines.openai.server import inspect_server, post_request
from rlt_data.engines.openai.worker import RequestWorker
from rlt_data.models.identity import ModelIdentity


class OpenAIEngine:
    """An engine over a server, with bounded concurrency and retries.

    The constructor waits for the server and detects its endpoints and log-probabilities. On
    `/v1/completions` rendered prompts are continued exactly; on a server that has only chat completions,
    `prefills` is False: the teacher's turn cannot be started for it.

    Raises `UsageError` for invalid options or a model that is not served, `EngineError` where the server is
    not ready in time, goes away, or refuses access.
    """

    name = "openai"

    def __init__(self, identity: ModelIdentity, options: EngineOptions) -> None:
        self._options = read_server_options(options.extra)
        self._notify = options.notify
        self.traits, server = asyncio.run(inspect_server(self._options, identity, notify=self._notify))
        self.version = f"openai ({server})"
        self.logprob_mode: LogprobMode = self.traits.logprob_mode or "none"
        self.dtype = "unknown"
        self.prefills = self.traits.api == "completions"
        self.tries = 0
        self._answers = 0
        self._unreported_endings = 0

    @property
    def notes(self) -> list[str]:
        """Limitations of the server, for the summary."""
        notes = []
        if not self.prefills:
            notes.append(
                "chat completions cannot prefill the teacher's turn: the instructions contained the solution "
                "and the opened explanation, and the teacher wrote both itself"
            )
        match self.traits.logprob_mode:
            case None:
                notes.append("the server sends no log-probabilities: scoring will run the teacher itself")
            case "raw":
                notes.append("the server's log-probabilities are raw, not under the sampling temperature")
            case "processed":
                pass
            case _:
                assert_never(self.traits.logprob_mode)
        if self._unreported_endings:
            notes.append(
                f"for {self._unreported_endings} of {self._answers} answers the server did not report "
                "whether the closing tag or the end token ended them; they are treated as closed"
            )
        return notes

    @property
    def figures(self) -> dict[str, float]:
        """How many requests were sent, including retries."""
        return {"requests_sent": self.tries}

    def generate(
        self,
        requests: Iterable[GenerationRequest],
        sampling: SamplingParameters,
        *,
        on_wait: Callable[[], None] | None = None,
    ) -> Generator[Completion | FailedRequest, None, None]:
        """Answer every request once, each as soon as it is finished, in no fixed order."""
        if self.traits.logprob_mode == "processed":
            self.logprob_mode = "nucleus" if sampling.top_p < 1 or sampling.top_k else "processed"
        return self._generate(iter(requests), sampling, on_wait)

    def close(self) -> None:
        """Do nothing: no connection is kept between calls."""

    def _generate(
        self,
        requests: Iterator[GenerationRequest],
        sampling: SamplingParameters,
        on_wait: Callable[[], None] | None,
    ) -> Generator[Completion | FailedRequest, None, None]:
        async def answer(client: ServerClient, request: GenerationRequest) -> Completion | FailedRequest:
            return await self._answer(client, request, sampling)

        worker = RequestWorker(self._options, answer, notify=self._notify)
        sent_before = self.tries
        for result in worker.answer_all(requests, on_wait):
            self._answers += 1
            self.tries = sent_before + worker.tries
            yield result

    async def _answer(
        self, client: ServerClient, request: GenerationRequest, sampling: SamplingParameters
    ) -> Completion | FailedRequest:
        try:
            found = await self._post(client, build_body(self.traits, request, sampling))
            answer = read_answer(found, request, sampling, self.traits)
        except RequestFailedError as error:
            return FailedRequest(request.key, error.reason, error.detail)
        except UnreadableAnswerError as error:
            return FailedRequest(request.key, error.reason, str(error))
        self._unreported_endings += not answer.ending_reported
        return answer.completion

    async def _post(self, client: ServerClient, body: dict[str, Any]) -> Any:
        """Post a request; one beyond the context is posted again with the room that its prompt leaves."""
        try:
            return await post_request(client, self.traits, body)
        except RequestFailedError as error:
            if error.reason != "over_context" or self.traits.context is None:
                raise
            prompt_tokens = await self._count_prompt(client, body)
            if prompt_tokens is None:
                raise
            room = fit_max_tokens(prompt_tokens, body["max_tokens"], self.traits.context)
            if not 0 < room < body["max_tokens"]:
                raise
            return await post_request(client, self.traits, {**body, "max_tokens": room})

    async def _count_prompt(self, client: ServerClient, body: dict[str, Any]) -> int | None:
        """Count the tokens of a prompt by requesting one token; None where the server reports no count."""
        try:
            return read_prompt_tokens(await post_request(client, self.traits, {**body, "max_tokens": 1}))
        except RequestFailedError:
            return None
