"""Problems of reasoning-gym, `reasoning-gym:NAME`: generated on demand, and the same for the same seed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import rlt_data
from rlt_data.errors import InputError
from rlt_data.hashing import hash_content
from rlt_data.sources.procedural.reasoning_gym_options import PREFIX, describe_settings, parse_options
from rlt_data.sources.rows import BadRow, SourceRow

PROBLEM_SECONDS = 60
"""Processor time of one problem."""


@dataclass(frozen=True)
class ReasoningGymPart:
    """Problems of one generator.

    `options` are those that the user gave; `settings` is the whole configuration of the generator, with
    defaults, size and seed.
    """

    layout: ClassVar[str | None] = "reasoning-gym"

    dataset: str
    size: int
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The generator, as the user names it."""
        return PREFIX + self.dataset

    def count_rows(self) -> int:
        """Return the requested number of problems."""
        return self.size

    def take_stamp(self) -> None:
        """Return None: nothing writes to it."""

    def identify(self) -> str:
        """Return the hash of the generator's settings and the version of reasoning-gym."""
        return hash_content(self.name, version("reasoning-gym"), self.settings)

    def read(self) -> Iterator[SourceRow | BadRow]:
        """Generate the problems one by one; a problem that cannot be generated is a `BadRow`.

        Raises `InputError` where a problem takes more than `PROBLEM_SECONDS`, and, with the last line of its
        log, where the generator's process dies.
        """
        number = -1
        for number, message in enumerate(self._generate()):
            if "row" in message:
                yield SourceRow(number, message["row"])
            else:
                yield BadRow(number, "generation_failed", f"{self.name}: {message['failed']}")

    def _generate(self) -> Iterator[dict[str, Any]]:
        root = str(Path(rlt_data.__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        request = {
            "name": self.dataset,
            "size": self.size,
            "seed": self.seed,
            "options": dict(self.options),
            "seconds": PROBLEM_SECONDS,
            "parent": os.getpid(),
        }
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "rlt_data.sources.procedural.reasoning_gym_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": path},
                text=True,
                encoding="utf-8",
            )
            assert worker.stdin is not None
            assert worker.stdout is not None
            try:
                worker.stdin.write(json.dumps(request, default=str) + "\n")
                worker.stdin.close()
                for line in worker.stdout:
                    yield json.loads(line)
                code = worker.wait()
                if code == -signal.SIGXCPU:
                    raise InputError(
                        f"one problem takes more than {PROBLEM_SECONDS} seconds of processor time",
                        where=self.name,
                        remedy="choose smaller values with --option",
                    )
                if code != 0:
                    log.seek(0)
                    messages = [line for line in log.read().splitlines() if line and not line[0].isspace()]
                    last = messages[-1] if messages else f"exit code {worker.returncode}"
                    raise InputError(f"the generator's process stopped: {last}", where=self.name)
            finally:
                worker.kill()
                worker.wait()
                worker.stdout.close()


def open_reasoning_gym(spec: str, *, size: int, seed: int, options: Mapping[str, Any]) -> ReasoningGymPart:
    """Open `reasoning-gym:NAME` with its options checked and typed.

    Raises `UsageError` for an unknown name (with the nearest ones), an unknown option or a value that the
    generator refuses; `MissingExtraError` without the package.
    """
    name = spec.removeprefix(PREFIX)
    config = parse_options(name, options, size=size, seed=seed)
    return ReasoningGymPart(name, size, seed, options, describe_settings(config))
