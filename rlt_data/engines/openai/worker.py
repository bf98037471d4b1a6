"""Send requests to one server concurrently, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Generic, TypeVar

from rlt_data.engines.base import wait_for
from rlt_data.engines.openai.client import ServerClient
from rlt_data.engines.openai.options import ServerOptions
from rlt_data.errors import EngineError

_QUEUED_PER_CONNECTION = 2

Request = TypeVar("Request")
Result = TypeVar("Result")


class RequestWorker(Generic[Request, Result]):
    """Answers requests, `options.concurrency` of them at once, in no fixed order."""

    def __init__(
        self,
        options: ServerOptions,
        answer: Callable[[ServerClient, Request], Awaitable[Result]],
        *,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self._options = options
        self._notify = notify
        self._answer = answer
        self._loop = asyncio.new_event_loop()
        self._waiting: asyncio.Queue[Request] = asyncio.Queue()
        self._results: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()
        self._task: asyncio.Task[None] | None = None
        self.tries = 0
        """Requests sent so far, including retries."""
        self._thread = threading.Thread(target=self._run, daemon=True, name="openai-requests")

    def answer_all(
        self, requests: Iterable[Request], on_wait: Callable[[], None] | None = None
    ) -> Iterator[Result]:
        """Answer every request once, reading new ones as others finish.

        `on_wait` is called about once a second while there is no answer. Raises the error that stops all
        requests.
        """
        source = iter(requests)
        unanswered = 0
        exhausted = False
        self._thread.start()
        try:
            while True:
                while not exhausted and unanswered < _QUEUED_PER_CONNECTION * self._options.concurrency:
                    try:
                        request = next(source)
                    except StopIteration:
                        exhausted = True
                        break
                    self._loop.call_soon_threadsafe(self._waiting.put_nowait, request)
                    unanswered += 1
                if not unanswered:
                    return
                result, error = wait_for(self._results, on_wait)
                if error is not None:
                    raise error
                unanswered -= 1
                assert result is not None
                yield result
        finally:
            self._stop()

    def _stop(self) -> None:
        """Cancel the requests under way and end the thread.

        The loop is closed here, not by the thread, which may end while the caller still adds requests.
        """
        self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join()
        self._loop.close()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._serve())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            self._results.put((None, EngineError("the requests were stopped")))
        except BaseExceptionGroup as group:
            self._results.put((None, group.exceptions[0]))
        except Exception as error:
            # `answer_all` raises it.
            self._results.put((None, error))

    async def _serve(self) -> None:
        async with ServerClient(self._options, notify=self._notify) as client, asyncio.TaskGroup() as group:
            for _ in range(self._options.concurrency):
                group.create_task(self._answer_waiting(client))

    async def _answer_waiting(self, client: ServerClient) -> None:
        while True:
            request = await self._waiting.get()
            result = await self._answer(client, request)
            self.tries = client.tries
            self._results.put((result, None))
