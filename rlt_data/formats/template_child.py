"""The child process of `template_guard.py`: renders chat templates under limits of time and memory.

It reads one rendering per line as JSON, and writes its outcome. It is run as a file and imports nothing but
jinja2, so that it starts in a few hundredths of a second. The environment is that of transformers, without
what draws random numbers: the parent renders the template again, and must get the same.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS = int(sys.argv[1]) if sys.argv[1:] else 5
MEMORY_BYTES = int(sys.argv[2]) if sys.argv[2:] else 512 * 2**20
MOST_CHARACTERS = 1_000_000


class RandomError(Exception):
    """The template draws random numbers."""


class GenerationTag(Extension):
    """The tag `generation` of transformers, which marks what an assistant writes and renders its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        """Parse up to `endgeneration`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller: Any) -> Any:
        return caller()


def main() -> None:
    """Render until the input ends; arguments: seconds of processor time a template, bytes of memory."""
    limit_memory()
    environment = make_environment()
    print("ready", flush=True)
    for line in sys.stdin:
        limit_time()
        print(json.dumps(render(environment, json.loads(line))), flush=True)


def render(environment: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Render one request: `template`, `messages`, `variables` and the `date`; the outcome has no text."""
    date = datetime.fromisoformat(request["date"])
    variables = {**request["variables"], "strftime_now": date.strftime}
    try:
        template = environment.from_string(request["template"])
        text = template.render(messages=request["messages"], tools=None, documents=None, **variables)
    except RandomError:
        return {"outcome": "random"}
    except MemoryError:
        return {"outcome": "memory"}
    except Exception as error:  # a template can raise anything; the parent reports it
        return {"outcome": "failed", "detail": str(error)[:500]}
    return {"outcome": "long" if len(text) > MOST_CHARACTERS else "rendered"}


def make_environment() -> Any:
    """Make the sandboxed environment in which transformers renders chat templates."""

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def refuse_random(*_: Any, **__: Any) -> None:
        raise RandomError

    def write_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    environment.filters |= {"tojson": write_json, "random": refuse_random}
    environment.globals |= {"raise_exception": refuse, "lipsum": refuse_random}
    return environment


def limit_memory() -> None:
    """Limit the address space, where the system can."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def limit_time() -> None:
    """Limit further processor time, where the system can; beyond it the system ends this process."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        limit = int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


if __name__ == "__main__":
    main()
