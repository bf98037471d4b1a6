"""Read what a server sends: bodies up to a limit, answers with a choice, and the pauses that it requests."""

from __future__ import annotations

import email.utils
import json
import math
import time
from collections.abc import Mapping
from typing import Any

import httpx

LONGEST_RETRY_AFTER = 600.0
MOST_REFUSAL_BYTES = 64 << 10
MOST_LIST_BYTES = 16 << 20
"""Bytes of the list of models: that of a large public server is under one million."""
BYTES_PER_TOKEN = 2048
"""Bytes of an answer that one token may take: its text, escaped, with log-probabilities and alternatives."""
SLACK_BYTES = 256 << 10
BYTES_PER_PROMPT_BYTE = 16
"""A server may repeat the prompt, as text or token ids."""


class BadAnswerError(Exception):
    """The server answered with a success status but an invalid answer; the request is tried again."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class AnswerTooLargeError(Exception):
    """The server's answer is larger than the request allows; it is not read, and not requested again."""


def count_answer_bytes(body: Mapping[str, Any], request_bytes: int) -> int:
    """Return how many bytes the answer to a request may have, by the number of tokens that are requested."""
    tokens = int(body.get("max_tokens", 1))
    if "prompt_logprobs" in body and isinstance(body.get("prompt"), list):
        tokens += len(body["prompt"])
    return SLACK_BYTES + BYTES_PER_TOKEN * tokens + BYTES_PER_PROMPT_BYTE * request_bytes


async def read_body(response: httpx.Response, most_bytes: int) -> bytes:
    """Read the body of a streamed response.

    Raises `AnswerTooLargeError` as soon as it is larger, `BadAnswerError` for a compressed one: none was
    asked for, and a small one can hold any number of bytes.
    """
    encoding = response.headers.get("content-encoding", "identity")
    if encoding not in ("", "identity"):
        raise BadAnswerError(
            "invalid_answer", f"the server's answer is compressed ({encoding!r:.40}) although it must not be"
        )
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) > most_bytes:
        raise AnswerTooLargeError(f"{int(length):,} bytes, and at most {most_bytes:,} were expected")
    found = bytearray()
    async for chunk in response.aiter_raw():
        found += chunk
        if len(found) > most_bytes:
            raise AnswerTooLargeError(f"more than the {most_bytes:,} bytes that were expected")
    return bytes(found)


async def read_refusal(response: httpx.Response) -> httpx.Response:
    """Read a streamed response that is no success: its status, what it shows of its text, and Retry-After."""
    found = bytearray()
    async for chunk in response.aiter_raw():
        found += chunk
        if len(found) > MOST_REFUSAL_BYTES:
            break
    kept = ("content-type", "retry-after")
    return httpx.Response(
        response.status_code,
        headers={name: response.headers[name] for name in kept if name in response.headers},
        content=bytes(found[:MOST_REFUSAL_BYTES]),
        request=response.request,
    )


def parse_answer(content: bytes) -> Any:
    """Parse the answer to a request. Raises `BadAnswerError` unless it has a choice."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadAnswerError("invalid_answer", f"the server's answer is not JSON: {error}") from error
    if not isinstance(answer, dict):
        raise BadAnswerError(
            "invalid_answer", f"the server's answer is {type(answer).__name__}, not an object"
        )
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise BadAnswerError("empty_answer", "the server's answer has no choices")
    return answer


def parse_models(content: bytes) -> list[dict[str, Any]]:
    """Parse a server's list of models; empty where it is none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return []
    models = found.get("data") if isinstance(found, dict) else found
    return [model for model in models if isinstance(model, dict)] if isinstance(models, list) else []


def read_retry_after(value: str | None) -> float | None:
    """Read a Retry-After header, seconds or a date, as seconds from now; None where it holds neither.

    No more than `LONGEST_RETRY_AFTER`, however long the server asks for.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def read_pause(error: Exception) -> float | None:
    """Read the pause in seconds that an error answer requests; None where it requests none."""
    if not isinstance(error, httpx.HTTPStatusError):
        return None
    return read_retry_after(error.response.headers.get("retry-after"))
