"""The HTTP client for all requests to one server: retries, pauses, readiness."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import httpx

from rlt_data.engines.openai.options import ServerOptions, hide_secrets
from rlt_data.engines.openai.reading import (
    MOST_LIST_BYTES,
    AnswerTooLargeError,
    BadAnswerError,
    count_answer_bytes,
    parse_answer,
    parse_models,
    read_body,
    read_pause,
    read_refusal,
)
from rlt_data.errors import EngineError

_RETRY_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_GATEWAY_STATUSES = frozenset({502, 503, 504})
_BUSY_STATUSES = frozenset({429, 503})
_DETAIL_CHARACTERS = 500
_LONG_PAUSE = 5.0
"""A requested pause of at least this many seconds is reported."""


class RequestFailedError(Exception):
    """One request failed for good: a short code, a sentence, and the status if the server refused it.

    `tried_at` is when its last try began, in seconds of the monotonic clock.
    """

    def __init__(self, reason: str, detail: str, tried_at: float, status: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.tried_at = tried_at
        self.status = status


class ServerClient:
    """Sends JSON to one server. All requests wait while the server requests a pause.

    A temporary status (429, 5xx and the like), a broken connection, a timeout and an answer that is not a
    JSON object are retried, after a pause that doubles, has jitter, and is at least as long as Retry-After
    requires. A 429 or 503 with Retry-After does not count as a failed try until the request's `timeout` has
    passed. No request takes longer than `total_timeout` with all its tries and pauses, and no answer is read
    beyond the size that its tokens can take. A server that cannot be reached, also behind a gateway that
    reports so, is waited for; if it does not return within `ready_timeout`, the work stops instead of
    failing every request. `notify` gets a sentence whenever the work begins to wait.
    """

    def __init__(self, options: ServerOptions, *, notify: Callable[[str], None] | None = None) -> None:
        self._options = options
        self._notify = notify or (lambda text: None)
        self._key = options.api_key
        self._pause_until = 0.0
        self._seen_ready = 0.0
        self._answered_at = 0.0
        self._returning = asyncio.Lock()
        self._confirming = asyncio.Lock()
        self._client = httpx.AsyncClient(
            base_url=options.base_url.rstrip("/") + "/",
            headers={
                "Accept-Encoding": "identity",
                **({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            },
            # `_try_post` times the request as a whole; httpx would restart its timer with each byte.
            timeout=httpx.Timeout(None, connect=min(30.0, options.timeout)),
            limits=httpx.Limits(
                max_connections=options.concurrency, max_keepalive_connections=options.concurrency
            ),
        )
        self.tries = 0
        """Requests sent so far, including retries."""

    async def __aenter__(self) -> ServerClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Post a JSON body; return the answer, which has at least one choice.

        Raises `RequestFailedError` where this request fails for good, `EngineError` where the server does.
        """
        began = time.monotonic()
        deadline = began + self._options.total_timeout
        tries = failed = 0
        while True:
            await self._await_pause(deadline)
            tried_at = time.monotonic()
            if tried_at >= deadline:
                raise RequestFailedError(
                    "timeout",
                    f"it requests a pause of more than {self._options.total_timeout:g} s (total_timeout)",
                    tried_at,
                )
            tries += 1
            try:
                answer = await self._try_post(path, body, deadline)
            except (httpx.HTTPError, BadAnswerError) as error:
                status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
                requested_pause = read_pause(error)
                excused = requested_pause is not None and status in _BUSY_STATUSES
                failed += not excused or tried_at - began > self._options.timeout
                if failed >= self._options.attempts or time.monotonic() >= deadline:
                    raise self._give_up(error, tries, tried_at) from error
                await self._back_off(tries, requested_pause, deadline)
                if time.monotonic() >= deadline:
                    raise self._give_up(error, tries, tried_at) from error
                if isinstance(error, httpx.ConnectError) or status in _GATEWAY_STATUSES:
                    await self._await_return()
            else:
                self._answered_at = time.monotonic()
                return answer

    async def confirm_works(self, path: str, body: Mapping[str, Any], failure: RequestFailedError) -> None:
        """Check that the server answered another request since this one failed, or answers this small one.

        Raises `EngineError` where it does not, so that no further request fails by the server's fault.
        """
        async with self._confirming:
            if self._answered_at > failure.tried_at:
                return
            try:
                await self.post(path, body)
            except RequestFailedError as error:
                raise EngineError(
                    f"the server no longer answers any request: {error.detail}",
                    where=self._options.base_url,
                    remedy="committed rows are kept: run the same command again when the server works",
                ) from error

    async def get_models(self) -> list[dict[str, Any]]:
        """Wait until the server is ready, and list its models; empty where it offers no list.

        Raises `EngineError` where it is not ready within `ready_timeout`, or refuses the API key.
        """
        deadline = time.monotonic() + self._options.ready_timeout
        problem = ""
        while (left := deadline - time.monotonic()) > 0:
            try:
                async with (
                    asyncio.timeout(min(10.0, self._options.ready_timeout)),
                    self._stream("GET", "models") as response,
                ):
                    self._check_access(response)
                    missing = response.status_code in (404, 405, 501)
                    if response.is_success or missing:
                        content = b"" if missing else await read_body(response, MOST_LIST_BYTES)
                        self._seen_ready = time.monotonic()
                        return parse_models(content)
                    found = f"status {response.status_code}"
            except TimeoutError:
                found = "no whole answer within 10 s"
            except (httpx.HTTPError, BadAnswerError, AnswerTooLargeError) as error:
                found = self._describe(error)
            if not problem:
                self._notify(
                    f"the server at {self._options.base_url} does not answer ({found}); trying again for "
                    f"{left:.0f} s (engine option ready_timeout)"
                )
            problem = found
            await asyncio.sleep(min(1.0, self._options.ready_timeout / 10))
        raise EngineError(
            f"the server is not ready after {self._options.ready_timeout:g} s: {problem}",
            where=self._options.base_url,
            remedy="start it (vllm serve MODEL), check the address, or raise ready_timeout",
        )

    @asynccontextmanager
    async def _stream(
        self, method: str, path: str, content: bytes | None = None
    ) -> AsyncIterator[httpx.Response]:
        headers = {"Content-Type": "application/json"} if content is not None else {}
        async with self._client.stream(method, path, content=content, headers=headers) as response:
            yield response

    async def _try_post(self, path: str, body: Mapping[str, Any], deadline: float) -> Any:
        self.tries += 1
        tried_at = time.monotonic()
        sent = json.dumps(body).encode()
        limit = max(0.0, min(self._options.timeout, deadline - tried_at))
        try:
            async with asyncio.timeout(limit), self._stream("POST", path, sent) as response:
                self._check_access(response)
                if response.is_success:
                    content = await read_body(response, count_answer_bytes(body, len(sent)))
                else:
                    response = await read_refusal(response)
        except TimeoutError as error:
            raise httpx.ReadTimeout(f"no whole answer within {limit:g} s") from error
        except AnswerTooLargeError as error:
            raise RequestFailedError(
                "answer_too_large", f"the server's answer is too large: {error}", tried_at
            ) from error
        if response.status_code in _RETRY_STATUSES:
            response.raise_for_status()
        if not response.is_success:
            raise RequestFailedError(
                f"http_{response.status_code}",
                f"the server refused the request with {self._describe_status(response)}",
                tried_at,
                response.status_code,
            )
        return parse_answer(content)

    def _check_access(self, response: httpx.Response) -> None:
        if response.status_code in (401, 403):
            name = self._options.api_key_env
            raise EngineError(
                f"the server refuses access (status {response.status_code})",
                where=self._options.base_url,
                remedy=f"check the API key in the environment variable {name}"
                if self._key
                else f"set the API key in the environment variable {name}",
            )

    async def _await_pause(self, deadline: float) -> None:
        while (pause := min(self._pause_until, deadline) - time.monotonic()) > 0:
            # Spread the requests, so that they do not all arrive when the pause ends.
            await asyncio.sleep(pause + random.uniform(0, self._options.backoff))

    async def _await_return(self) -> None:
        """Wait for a server that could not be reached; one request polls it, the others wait for that."""
        failed = time.monotonic()
        async with self._returning:
            if self._seen_ready < failed:
                await self.get_models()

    async def _back_off(self, tries: int, requested: float | None, deadline: float) -> None:
        pause = min(self._options.longest_pause, self._options.backoff * 2.0 ** min(tries - 1, 30))
        pause *= random.uniform(0.5, 1.0)
        if requested is not None:
            pause = max(pause, requested + random.uniform(0, self._options.backoff))
            until = time.monotonic() + requested
            if requested >= _LONG_PAUSE and until - self._pause_until >= _LONG_PAUSE:
                waited = max(0.0, min(requested, deadline - time.monotonic()))
                self._notify(
                    f"the server at {self._options.base_url} requests a pause: waiting {waited:.0f} s"
                    + ("" if waited == requested else " (the rest of total_timeout)")
                )
            self._pause_until = max(self._pause_until, until)
        await asyncio.sleep(max(0.0, min(pause, deadline - time.monotonic())))

    def _give_up(self, error: Exception, tries: int, tried_at: float) -> RequestFailedError:
        if isinstance(error, BadAnswerError):
            reason = error.reason
        elif isinstance(error, httpx.HTTPStatusError):
            reason = f"http_{error.response.status_code}"
        else:
            reason = "timeout" if isinstance(error, httpx.TimeoutException) else "connection"
        return RequestFailedError(reason, f"failed {tries} times: {self._describe(error)}", tried_at)

    def _describe(self, error: Exception) -> str:
        if isinstance(error, httpx.HTTPStatusError):
            return self._describe_status(error.response)
        return hide_secrets(str(error) or type(error).__name__, [self._key])

    def _describe_status(self, response: httpx.Response) -> str:
        # Hide secrets before truncating: half a key is still a secret.
        text = hide_secrets(response.text, [self._key])
        return f"status {response.status_code}: {text[:_DETAIL_CHARACTERS]}"
