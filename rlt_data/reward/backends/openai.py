"""Log-probabilities of given texts from a vLLM server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rlt_data.engines.openai.client import RequestFailedError, ServerClient
from rlt_data.engines.openai.options import read_server_options
from rlt_data.engines.openai.server import inspect_server, post_request
from rlt_data.engines.openai.worker import RequestWorker
from rlt_data.errors import UsageError
from rlt_data.models import ModelIdentity, load_tokenizer
from rlt_data.reward.backends.base import BackendFailure

Text = tuple[str, list[int]]
Scored = tuple[str, list[float] | BackendFailure]


class ServerBackend:
    """Scores texts by the `prompt_logprobs` of a vLLM server, which bypass its prefix cache.

    `identity` gives the model's name and tokenizer. Raises `UsageError` for a temperature other than 1,
    which a server does not apply to prompts, and for a server other than vLLM. `notify` gets a sentence
    whenever it must wait for the server.
    """

    def __init__(
        self,
        identity: ModelIdentity,
        temperature: float,
        *,
        options: Mapping[str, Any],
        notify: Callable[[str], None] | None = None,
    ) -> None:
        if temperature != 1.0:
            raise UsageError(
                f"a server's prompt_logprobs are those of temperature 1, not {temperature:g}",
                where="temperature",
                remedy="--temperature 1; or --backend vllm or torch, where the model's files are on this "
                "machine",
            )
        self._options = read_server_options({**options, "api": "completions"})
        self._notify = notify
        traits, _ = asyncio.run(inspect_server(self._options, identity, notify=notify))
        if not traits.is_vllm:
            raise UsageError(
                "the server is not vLLM, and only vLLM returns prompt_logprobs",
                where=self._options.base_url,
                remedy="serve the student with `vllm serve`, or use --backend torch",
            )
        self.name = identity.name
        self.tokenizer = load_tokenizer(identity)
        self.context = traits.context - 1 if traits.context is not None else None
        self._traits = traits

    def score(self, texts: Iterable[Text]) -> Iterator[Scored]:
        """Score texts with bounded concurrency; see `LogprobBackend`."""
        return RequestWorker(self._options, self._score_text, notify=self._notify).answer_all(texts)

    def close(self) -> None:
        """Do nothing: no connection is kept between calls."""

    async def _score_text(self, client: ServerClient, text: Text) -> Scored:
        key, token_ids = text
        body = {
            "model": self._traits.model,
            "prompt": token_ids,
            "max_tokens": 1,
            "temperature": 1.0,
            "prompt_logprobs": 0,
        }
        try:
            answer = await post_request(client, self._traits, body)
        except RequestFailedError as error:
            return key, BackendFailure(error.reason, error.detail)
        return key, read_prompt_logprobs(answer, token_ids)


def read_prompt_logprobs(answer: Mapping[str, Any], token_ids: list[int]) -> list[float] | BackendFailure:
    """Read the log-probability of every token but the first from an answer with `prompt_logprobs`."""
    entries = answer["choices"][0].get("prompt_logprobs")
    if not isinstance(entries, list) or len(entries) != len(token_ids):
        count = len(entries) if isinstance(entries, list) else "no"
        return BackendFailure("invalid_answer", f"{count} prompt_logprobs for {len(token_ids)} tokens")
    values: list[float] = []
    for token, entry in zip(token_ids[1:], entries[1:], strict=True):
        own = entry.get(str(token)) if isinstance(entry, dict) else None
        if not isinstance(own, dict) or not isinstance(own.get("logprob"), (int, float)):
            return BackendFailure("invalid_answer", f"token {token} has no prompt_logprob")
        values.append(float(own["logprob"]))
    return values
