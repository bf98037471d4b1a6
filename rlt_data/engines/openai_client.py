"""One HTTP client for all requests to a server: retries, pauses, readiness."""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import httpx

from rlt_data.engines.openai_options import ServerOptions, hide_secrets
from rlt_data.errors import EngineError

_TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_LONGEST_RETRY_AFTER = 600.0
_DETAIL_CHARACTERS = 500


class RequestFailedError(Exception):
    """One request failed for good: a short code, a sentence, and the status where there was one."""

    def __init__(self, reason: str, detail: str, status: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.status = status


class BadAnswerError(Exception):
    """The server answered with success, but not with what it should; worth another try."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class ServerClient:
    """Sends JSON to one server. All requests wait while the server asks for a pause.

    A status that may pass (429, 5xx and the like), a cut connection, a timeout and an answer that is no
    JSON object are tried again, after a pause that doubles, with jitter, and is at least what Retry-After
    asks for. A server that cannot be reached at all is waited for; one that does not come back within
    `ready_timeout` stops the work instead of spoiling every request.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._key = options.api_key
        self._pause_until = 0.0
        self._seen_ready = 0.0
        self._returning = asyncio.Lock()
        self._client = httpx.AsyncClient(
            base_url=options.base_url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(options.timeout, connect=min(30.0, options.timeout), pool=None),
            limits=httpx.Limits(
                max_connections=options.concurrency, max_keepalive_connections=options.concurrency
            ),
        )
        self.tries = 0
        """Requests sent so far, repeated ones included."""

    async def __aenter__(self) -> ServerClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def post(self, path: str, body: Mapping[str, Any], *, attempts: int | None = None) -> Any:
        """Post a JSON body; return the answer, which holds at least one choice.

        Raises `RequestFailedError` where this request is given up, `EngineError` where the server is.
        """
        attempts = attempts or self._options.attempts
        attempt = 0
        while True:
            await self._await_pause()
            attempt += 1
            try:
                return await self._try_post(path, body)
            except (httpx.HTTPError, BadAnswerError) as error:
                if attempt >= attempts:
                    raise self._give_up(error, attempt) from error
                await self._back_off(error, attempt)
                if isinstance(error, httpx.ConnectError):
                    await self._await_return()

    async def get_models(self) -> list[dict[str, Any]]:
        """Wait until the server is ready, and list its models (empty where it has no such list).

        Raises `EngineError` where it is not ready within `ready_timeout`, or refuses the API key.
        """
        deadline = time.monotonic() + self._options.ready_timeout
        problem = "no answer"
        while time.monotonic() < deadline:
            try:
                response = await self._client.get("models", timeout=min(10.0, self._options.ready_timeout))
            except httpx.HTTPError as error:
                problem = self._describe(error)
            else:
                self._check_access(response)
                missing = response.status_code in (404, 405, 501)
                if response.is_success or missing:
                    self._seen_ready = time.monotonic()
                    return [] if missing else _read_models(response)
                problem = f"status {response.status_code}"
            await asyncio.sleep(min(1.0, self._options.ready_timeout / 10))
        raise EngineError(
            f"the server is not ready after {self._options.ready_timeout:g} s: {problem}",
            where=self._options.base_url,
            remedy="start it (vllm serve MODEL), check the address, or raise ready_timeout",
        )

    async def _try_post(self, path: str, body: Mapping[str, Any]) -> Any:
        self.tries += 1
        response = await self._client.post(path, json=body)
        self._check_access(response)
        if response.status_code in _TRY_AGAIN:
            response.raise_for_status()
        if not response.is_success:
            detail = self._hide(response.text[:_DETAIL_CHARACTERS])
            raise RequestFailedError(
                f"http_{response.status_code}",
                f"the server refused the request with status {response.status_code}: {detail}",
                response.status_code,
            )
        try:
            answer = json.loads(response.content)
        except ValueError as error:
            raise BadAnswerError("invalid_answer", f"the server's answer is no JSON: {error}") from error
        check_answer(answer)
        return answer

    def _check_access(self, response: httpx.Response) -> None:
        if response.status_code in (401, 403):
            name = self._options.api_key_env
            raise EngineError(
                f"the server refuses access (status {response.status_code})",
                where=self._options.base_url,
                remedy=f"check the API key in the environment variable {name}"
                if self._key
                else f"put an API key into the environment variable {name}",
            )

    async def _await_pause(self) -> None:
        while (pause := self._pause_until - time.monotonic()) > 0:
            await asyncio.sleep(pause)

    async def _await_return(self) -> None:
        """Wait for a server that could not be reached; one request asks, the others wait with it."""
        failed = time.monotonic()
        async with self._returning:
            if self._seen_ready < failed:
                await self.get_models()

    async def _back_off(self, error: Exception, attempt: int) -> None:
        pause = min(self._options.longest_pause, self._options.backoff * 2.0 ** (attempt - 1))
        pause *= random.uniform(0.5, 1.0)
        if isinstance(error, httpx.HTTPStatusError):
            asked = read_retry_after(error.response.headers.get("retry-after"))
            if asked is not None:
                pause = asked + random.uniform(0, self._options.backoff)
                self._pause_until = max(self._pause_until, time.monotonic() + asked)
        await asyncio.sleep(pause)

    def _give_up(self, error: Exception, attempt: int) -> RequestFailedError:
        if isinstance(error, BadAnswerError):
            reason = error.reason
        elif isinstance(error, httpx.HTTPStatusError):
            reason = f"http_{error.response.status_code}"
        else:
            reason = "timeout" if isinstance(error, httpx.TimeoutException) else "connection"
        return RequestFailedError(reason, f"given up after {attempt} tries: {self._describe(error)}")

    def _describe(self, error: Exception) -> str:
        if isinstance(error, httpx.HTTPStatusError):
            text = error.response.text[:_DETAIL_CHARACTERS]
            return self._hide(f"status {error.response.status_code}: {text}")
        return self._hide(str(error) or type(error).__name__)

    def _hide(self, text: str) -> str:
        return hide_secrets(text, [self._key])


def check_answer(answer: Any) -> None:
    """Refuse an answer that holds no choice. Raises `BadAnswerError`."""
    if not isinstance(answer, dict):
        raise BadAnswerError("invalid_answer", f"the server's answer is {type(answer).__name__}, no object")
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise BadAnswerError("empty_answer", "the server's answer holds no choices")


def read_retry_after(value: str | None) -> float | None:
    """Read a Retry-After header, seconds or a date, as seconds from now; None where it says nothing."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)


def _read_models(response: httpx.Response) -> list[dict[str, Any]]:
    try:
        found = response.json()
    except ValueError:
        return []
    models = found.get("data") if isinstance(found, dict) else found
    return [model for model in models if isinstance(model, dict)] if isinstance(models, list) else []
