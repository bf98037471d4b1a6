"""Procedural problems: `reasoning-gym:NAME`, made on demand and the same for the same seed."""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import rlt_data
from rlt_data.errors import InputError, MissingExtraError, UsageError
from rlt_data.hashing import hash_content
from rlt_data.sources.rows import BadRow, SourceRow

PREFIX = "reasoning-gym:"


@dataclass(frozen=True)
class ProceduralPart:
    """Problems of one generator; `settings` is its whole configuration, defaults included."""

    dataset: str
    size: int
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""

    @property
    def name(self) -> str:
        """The generator, as the user names it."""
        return PREFIX + self.dataset

    def count_rows(self) -> int:
        """Return how many problems are asked for."""
        return self.size

    def identify(self) -> str:
        """Return the hash of the generator's settings and of the package's version."""
        return hash_content(self.name, self.version, self.settings)

    def read(self) -> Iterator[SourceRow | BadRow]:
        """Make the problems one by one; one whose generator fails is a bad row."""
        with _start_worker(self.dataset, self.size, self.seed, self.options) as messages:
            next(messages)
            number = -1
            for number, message in enumerate(messages):
                if "row" in message:
                    yield SourceRow(number, message["row"])
                else:
                    yield BadRow(number, "generation_failed", f"{self.name}: {message['failed']}")
        if number + 1 < self.size:
            raise InputError(
                f"the generator stopped after {number + 1} of {self.size} problems", where=self.name
            )


def open_procedural(spec: str, *, size: int, seed: int, options: Mapping[str, Any]) -> ProceduralPart:
    """Open `reasoning-gym:NAME`, with its options checked and typed.

    Raises `UsageError` for an unknown name (with the nearest ones), an unknown option or a value that the
    generator refuses; `MissingExtraError` without the package.
    """
    if importlib.util.find_spec("reasoning_gym") is None:
        raise MissingExtraError(
            "this needs the package 'reasoning-gym', which is not installed",
            remedy="pip install 'rlt-data[problems]'",
        )
    name = spec.removeprefix(PREFIX)
    with _start_worker(name, size, seed, options) as messages:
        answer = next(messages)
    if "error" in answer:
        raise _explain_refusal(name, answer, options)
    settings = {**answer["settings"], "size": size, "seed": seed}
    return ProceduralPart(name, size, seed, options, settings, answer["version"])


@contextmanager
def _start_worker(
    name: str, size: int, seed: int, options: Mapping[str, Any]
) -> Iterator[Iterator[dict[str, Any]]]:
    root = str(Path(rlt_data.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": path}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "rlt_data.sources.procedural_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            text=True,
            encoding="utf-8",
        )
        try:
            assert worker.stdin is not None
            assert worker.stdout is not None
            request = {"name": name, "size": size, "seed": seed, "options": dict(options)}
            worker.stdin.write(json.dumps(request) + "\n")
            worker.stdin.close()
            yield _read_messages(worker, worker.stdout, log)
        finally:
            worker.kill()
            worker.wait()
            if worker.stdout is not None:
                worker.stdout.close()


def _read_messages(worker: subprocess.Popen[str], output: IO[str], log: IO[str]) -> Iterator[dict[str, Any]]:
    for line in output:
        yield json.loads(line)
    if worker.wait() != 0:
        log.seek(0)
        last = (log.read().strip().splitlines() or ["it left no message"])[-1]
        raise InputError(f"the generator of problems stopped: {last}", where=PREFIX)


def _explain_refusal(name: str, answer: Mapping[str, Any], options: Mapping[str, Any]) -> UsageError:
    if answer["error"] == "unknown_name":
        near = difflib.get_close_matches(name, answer["names"], n=3, cutoff=0.4)
        return UsageError(
            f"reasoning-gym has no problems named {name!r}",
            remedy="nearest: " + ", ".join(near) if near else "one of: " + ", ".join(answer["names"]),
        )
    if answer["error"] == "option":
        unknown = [option for option in options if option not in answer["names"]]
        near = difflib.get_close_matches(unknown[0], answer["names"], n=3) if unknown else []
        hint = f"nearest: {', '.join(near)}; all: " if near else "its options: "
        return UsageError(
            f"{PREFIX}{name} {answer['message']}".replace(" it has", " has"),
            remedy=hint + ", ".join(answer["names"]),
        )
    return UsageError(
        f"{PREFIX}{name} refuses its options: {answer['message']}", where=json.dumps(dict(options))
    )
