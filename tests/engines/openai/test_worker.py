"""The event loop that sends requests to a server, and the errors that stop it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from rlt_data.engines.openai.client import ServerClient
from rlt_data.engines.openai.options import ServerOptions
from rlt_data.engines.openai.worker import RequestWorker
from rlt_data.errors import EngineError

OPTIONS = ServerOptions(base_url="http://127.0.0.1:9/v1", concurrency=2)


def ask_slowly() -> Iterator[int]:
    """Yield requests that continue after the work has stopped."""
    for index in range(3):
        yield index
        time.sleep(0.2)


@pytest.mark.parametrize("error", [EngineError("gone"), KeyError("a defect")])
def test_the_error_that_stops_the_work_is_raised_to_the_caller(error: Exception) -> None:
    async def answer(client: ServerClient, question: int) -> int:
        raise error

    with pytest.raises(type(error)) as caught:
        list(RequestWorker(OPTIONS, answer).answer_all(ask_slowly()))
    assert caught.value is error


def test_a_worker_that_cannot_start_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(client: ServerClient, question: int) -> int:
        return question

    monkeypatch.setenv("OPENAI_API_KEY", "broken\nkey")
    with pytest.raises(Exception, match="cannot be sent"):
        list(RequestWorker(OPTIONS, answer).answer_all(ask_slowly()))
