"""A small OpenAI-compatible server that injects faults as planned and counts its requests.

What happens to a prompt is decided by a plan: a list of faults for its first tries, then a good answer.
The last fault of a plan is repeated when the plan says `forever`.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "faulty"
PROBE = "The"
SLOW_SECONDS = 60.0
TRICKLE_SECONDS = 0.2
ENDLESS_BYTES = 1 << 28


@dataclass
class Plan:
    """Faults of the first tries of one prompt; with `forever` the last one repeats."""

    faults: tuple[str, ...] = ()
    forever: bool = False

    def choose(self, attempt: int) -> str:
        """Return the fault of a try, counted from 0, or `good`."""
        if attempt < len(self.faults):
            return self.faults[attempt]
        return self.faults[-1] if self.forever and self.faults else "good"


@dataclass
class FaultServer:
    """The server on a loopback port; `plan` maps a prompt to its plan, `answer` to its text.

    While `broken`, it fails every request; until `back_at`, only a gateway answers.
    """

    plan: Callable[[str], Plan]
    answer: Callable[[str], str] = lambda prompt: "because.<|end_of_explanation|>"
    api_key: str | None = None
    logprobs: bool = True
    completions: bool = True
    broken: bool = False
    back_at: float = 0.0
    probes: int = 0
    tries: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    moments: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    context: int | None = None
    """Context in tokens; every prompt has 7."""
    drips: bool = False
    """Whether the list of models comes byte by byte, without an end."""
    bytes_sent: int = 0
    """Bytes of an endless answer that were sent before the connection broke."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> FaultServer:
        handler = type("Handler", (_Handler,), {"faulty": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop, and break every open connection."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    faulty: FaultServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.faulty.connections.append(self.connection)

    def do_GET(self) -> None:
        if self.faulty.drips:
            self._drip()
        elif self._allow():
            entry = {"id": MODEL, "owned_by": "tests", "max_model_len": self.faulty.context}
            self._send(200, {"object": "list", "data": [entry]})

    def do_POST(self) -> None:
        faulty = self.faulty
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self._allow():
            return
        chat = self.path.endswith("/chat/completions")
        if not chat and not faulty.completions:
            self._send(404, {"error": {"message": "this model has chat completions only"}})
            return
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        if prompt == PROBE:
            faulty.probes += 1
        if faulty.broken:
            self._do_error(chat, prompt, body)
            return
        if prompt == PROBE:
            self._send(200, self._write(chat, "x", "length", body))
            return
        faulty.bodies.append(body)
        if faulty.context is not None and 7 + body["max_tokens"] > faulty.context:
            self._do_too_long(chat, prompt, body)
            return
        attempt = faulty.tries[prompt]
        faulty.tries[prompt] += 1
        faulty.moments[prompt].append(time.monotonic())
        fault = faulty.plan(prompt).choose(attempt)
        faulty.faults[fault] += 1
        getattr(self, f"_do_{fault}")(chat, prompt, body)

    def _do_good(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self.faulty.served[prompt] += 1
        self._send(200, self._write(chat, self.faulty.answer(prompt), "stop", body))

    def _do_partial(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self.faulty.served[prompt] += 1
        self._send(200, self._write(chat, "because it", None, body))

    def _do_length(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self.faulty.served[prompt] += 1
        self._send(200, self._write(chat, "because it is so", "length", body))

    def _do_busy(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self._send(429, {"error": "slow down"}, {"Retry-After": "0.3"})

    def _do_limited(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self._send(429, {"error": "too many requests"}, {"Retry-After": "0.02"})

    def _do_error(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self._send(500, {"error": "out of order"})

    def _do_unavailable(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self._send(503, {"error": "restarting"})

    def _do_refused(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self._send(400, {"error": f"bad request, and your key is {self.headers['authorization']}"})

    def _do_refused_at_length(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self._send(400, {"error": "x" * 465 + str(self.headers["authorization"])})

    def _do_too_long(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self._send(400, {"error": "This model's maximum context length is 128 tokens."})

    def _do_cut(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _do_cut_midway(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "500")
        self.end_headers()
        self.wfile.write(b'{"choices": [{"text": "beca')
        self.wfile.flush()
        self._do_cut(chat, prompt, body)

    def _do_slow(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        # Answers nothing until the client gives up and closes the connection.
        self.connection.settimeout(SLOW_SECONDS)
        with suppress(OSError):
            self.connection.recv(1)
        self.close_connection = True

    def _do_trickle(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "500")
        self.end_headers()
        with suppress(OSError):
            for _ in range(300):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(TRICKLE_SECONDS)
        self.close_connection = True

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(b"1\r\n \r\n")
                self.wfile.flush()
                time.sleep(0.02)
        self.close_connection = True

    def _do_endless(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        chunk = b" " * 65536
        with suppress(OSError):
            while self.faulty.bytes_sent < ENDLESS_BYTES:
                self.wfile.write(b"10000\r\n" + chunk + b"\r\n")
                self.faulty.bytes_sent += len(chunk)
        self.close_connection = True

    def _do_declared(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "3000000000")
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(b" ")
            # Returns when the client closes the connection.
            self.rfile.read(1)
        self.close_connection = True

    def _do_long_text(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self._send(200, self._write(chat, "x" * 100_000, "stop", body))

    def _do_many_tokens(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        answer = self._write(chat, "x", "stop", body)
        answer["choices"][0]["token_ids"] = [1] * (body["max_tokens"] + 1)
        self._send(200, answer)

    def _do_null(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"text": None, "finish_reason": "stop"}
        if chat:
            answer = {"message": {"role": "assistant", "content": None}, "finish_reason": "stop"}
        self._send(200, {"choices": [answer]})

    def _do_compressed(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self._send(200, gzip.compress(b" " * 50_000_000), {"Content-Encoding": "gzip"})

    def _do_nested(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self._send(200, b"[" * 200_000)

    def _do_wait_long(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self._send(429, {"error": "come back tomorrow"}, {"Retry-After": "100000"})

    def _do_odd(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self._send(200, {"choices": [{"text": {"parts": []}, "finish_reason": "stop"}], "usage": "none"})

    def _do_garbage(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self._send(200, b"<html>not what you asked for</html>")

    def _do_empty(self, chat: bool, prompt: str, body: dict[str, Any]) -> None:
        self._send(200, {"choices": []})

    def _allow(self) -> bool:
        if time.monotonic() < self.faulty.back_at:
            self._send(503, {"error": "no upstream"})
            return False
        key = self.faulty.api_key
        if key is None or self.headers["authorization"] == f"Bearer {key}":
            return True
        self._send(401, {"error": "no access"})
        return False

    def _write(self, chat: bool, text: str, finish: str | None, body: dict[str, Any]) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
        logprob = -0.5 / (body["temperature"] or 1.0)
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        if self.faulty.logprobs and body.get("logprobs") is not None and not chat:
            tokens = text.split()
            choice["logprobs"] = {
                "tokens": tokens,
                "token_logprobs": [logprob] * len(tokens),
                "top_logprobs": [{token: logprob} for token in tokens],
            }
        count = len(text.split())
        return {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": count}}

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        except ConnectionError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
