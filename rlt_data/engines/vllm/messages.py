"""Messages between this process and the child process that holds vLLM: one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import IO, Any, Literal, TypedDict

Message = dict[str, Any]
Item = list[Any]
Operation = Literal["start", "requests", "score", "abort", "close"]
"""The operation that the parent requests, in `op`."""
Event = Literal["refused", "ready", "completions", "scores", "aborted", "died"]
"""The event that the child reports, in `event`."""
Purpose = Literal["generate", "score"]


class EngineSetup(TypedDict):
    """Everything the child needs to start vLLM."""

    model: str
    """Directory of the model."""
    tokenizer: str
    """Directory of the tokenizer: the adapter's own where it has one, else the model's."""
    adapter: str | None
    """Directory of a LoRA adapter."""
    dtype: str
    device: str
    max_rows: int | None
    """Texts in one batch; None leaves the choice to vLLM."""
    purpose: Purpose
    context: int
    """The model's context in tokens, 0 where its configuration does not name one."""
    vocabulary: int
    memory_bytes: int
    """Limit on the logits of one step when scoring."""
    options: dict[str, Any]
    """Options of vLLM itself."""


def write_message(stream: IO[bytes], message: Mapping[str, Any]) -> None:
    """Write one message and flush it."""
    stream.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
    stream.flush()


def read_messages(stream: IO[bytes]) -> Iterator[Message]:
    """Yield messages until the stream ends.

    A process that is killed while it writes leaves a line without a line break: that ends the stream, too.
    Raises `ValueError` for a whole line that is not JSON.
    """
    for line in stream:
        if not line.endswith(b"\n"):
            return
        yield json.loads(line)
