"""The capabilities of a server, detected by probing it, and the meaning of its errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, assert_never
from urllib.parse import urlsplit

from rlt_data.engines.openai.client import RequestFailedError, ServerClient
from rlt_data.engines.openai.options import ServerOptions
from rlt_data.engines.openai.protocol import (
    Api,
    ServerLogprobMode,
    ServerTraits,
    build_probe,
    read_top_logprob,
)
from rlt_data.errors import EngineError, UsageError
from rlt_data.models.identity import ModelIdentity

_ENDPOINT_MISSING = (404, 405, 501)
_OVER_CONTEXT_PHRASES = (
    "context length", "context_length", "context size", "context_size", "maximum context", "max_model_len",
    "too long",
)  # fmt: skip
_SAME_LOGPROB = 0.01
"""Log-probabilities (nats) that differ by no more than this are those of one temperature."""


def get_path(api: Api) -> str:
    """Return the path of an endpoint, relative to the base URL."""
    match api:
        case "completions":
            return "completions"
        case "chat":
            return "chat/completions"
        case _:
            assert_never(api)


async def post_request(client: ServerClient, traits: ServerTraits, body: Mapping[str, Any]) -> Any:
    """Post one request and return the answer, which has at least one choice.

    Raises `RequestFailedError` where the request failed for good, with the reason `over_context` where the
    server's message means that, and `EngineError` where the server answers no other request either.
    """
    try:
        return await client.post(get_path(traits.api), body)
    except RequestFailedError as error:
        detail = error.detail.lower()
        if error.status in (400, 413, 422) and any(phrase in detail for phrase in _OVER_CONTEXT_PHRASES):
            error.reason = "over_context"
        else:
            probe = build_probe(traits.model, traits.api, 1.0, logprobs=False, is_vllm=traits.is_vllm)
            await client.confirm_works(get_path(traits.api), probe, error)
        raise


def await_server(options: ServerOptions, *, notify: Callable[[str], None] | None = None) -> None:
    """Wait until the server is ready; `notify` gets a sentence where it does not answer at once.

    Raises `EngineError` where it is not ready in time or refuses access.
    """

    async def wait() -> None:
        async with ServerClient(options, notify=notify) as client:
            await client.get_models()

    asyncio.run(wait())


async def inspect_server(
    options: ServerOptions, identity: ModelIdentity, *, notify: Callable[[str], None] | None = None
) -> tuple[ServerTraits, str]:
    """Wait for the server; return what it can do for a model, and a name of its software.

    `notify` gets a sentence where it does not answer at once.

    Raises `UsageError` where it does not serve the model or does not answer on the selected endpoint,
    `EngineError` where it is not ready in time or refuses access.
    """
    async with ServerClient(options, notify=notify) as client:
        model, entry = _find_model(await client.get_models(), identity, options)
        is_vllm = entry.get("owned_by") == "vllm"
        apis: list[Api] = ["completions", "chat"] if options.api == "auto" else [options.api]
        for api in apis:
            try:
                mode = await _probe_logprobs(client, model, api, is_vllm=is_vllm)
            except RequestFailedError as error:
                if error.status is None:
                    # The endpoint exists but fails; falling back to chat would lose the prefill.
                    raise EngineError(
                        f"the server fails on /{get_path(api)}: {error.detail}", where=options.base_url
                    ) from error
                if api != apis[-1]:
                    continue
                raise UsageError(
                    f"the server does not answer on /{get_path(api)}: {error.detail}",
                    where=options.base_url,
                    remedy="check the address (it usually ends in /v1) and the model's name",
                ) from error
            context = entry.get("max_model_len")
            traits = ServerTraits(
                api=api,
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
    """Find the model in the server's list, by its resolved name or as the user wrote it.

    A server without a list is assumed to serve it.
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


async def _probe_logprobs(
    client: ServerClient, model: str, api: Api, *, is_vllm: bool
) -> ServerLogprobMode | None:
    """Request one token at two temperatures: processed log-probabilities change with it, raw ones do not."""
    found = []
    for temperature in (0.5, 1.0):
        probe = build_probe(model, api, temperature, logprobs=True, is_vllm=is_vllm)
        try:
            answer = await client.post(get_path(api), probe)
        except RequestFailedError as error:
            if error.status is None or error.status in _ENDPOINT_MISSING:
                raise
            plain = build_probe(model, api, temperature, logprobs=False, is_vllm=is_vllm)
            await client.post(get_path(api), plain)
            return None
        found.append(read_top_logprob(answer))
    if found[0] is None or found[1] is None:
        return None
    return "processed" if abs(found[0] - found[1]) > _SAME_LOGPROB else "raw"
