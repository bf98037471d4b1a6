"""Options of the engine behind an OpenAI-compatible server; secrets come from the environment alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import pydantic

from rlt_data.errors import UsageError
from rlt_data.suggestions import suggest_name
from rlt_data.validation import describe_problem

# The name of one thing that is secret; `tokenizer_mode` and `long_prefill_token_threshold` are not.
_SECRET_NAME = re.compile(
    r"keys?$|token$|secret|passw|authori|credential|bearer|header|cookie", re.IGNORECASE
)
_HIDDEN = "[hidden]"


class ServerOptions(pydantic.BaseModel):
    """How a server is talked to. `timeout` and the other times are in seconds."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base_url: str
    """Address up to and including the version, such as http://localhost:8000/v1."""
    served_model: str | None = None
    """The model's name at the server, where it differs from the teacher's."""
    api: Literal["auto", "completions", "chat"] = "auto"
    """Which endpoint: completions wherever the server has it, since only there a turn can be prefilled."""
    concurrency: int = pydantic.Field(64, ge=1)
    """Requests under way at once."""
    timeout: float = pydantic.Field(1800.0, gt=0)
    """Limit on one request."""
    attempts: int = pydantic.Field(6, ge=1)
    """How often a request is tried before it is given up."""
    backoff: float = pydantic.Field(0.5, gt=0)
    """Longest first pause between tries; it doubles with each try."""
    longest_pause: float = pydantic.Field(60.0, gt=0)
    """Longest pause between tries; a server's Retry-After may ask for more."""
    ready_timeout: float = pydantic.Field(120.0, gt=0)
    """How long the server may take to become ready, at first and after it went away."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the API key, where the server asks for one."""

    @property
    def api_key(self) -> str | None:
        """The API key, or None where the environment has none; blank ends, as of a file's last line, are cut.

        Raises `UsageError` for one that no header can carry, without showing it.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise UsageError(
                "the API key holds characters that cannot be sent",
                where=f"environment variable {self.api_key_env}",
                remedy="set it again, without line breaks, quotation marks or other additions",
            )
        return key or None


def read_server_options(options: Mapping[str, Any]) -> ServerOptions:
    """Read the options. Raises `UsageError` naming the one that is wrong; values are never shown."""
    refuse_secrets(options)
    if not options.get("base_url"):
        raise UsageError(
            "the engine 'openai' needs the address of a server",
            where="base_url",
            remedy="--base-url http://localhost:8000/v1",
        )
    try:
        return ServerOptions.model_validate(dict(options))
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        unknown = problem["type"] == "extra_forbidden"
        raise UsageError(
            f"the engine 'openai' has no option {name!r}"
            if unknown
            else f"{name}: {describe_problem(problem, show_input=False)}",
            where=name,
            remedy=suggest_name(name, ServerOptions.model_fields) if unknown else None,
        ) from None


def refuse_secrets(options: Mapping[str, Any]) -> None:
    """Refuse options and addresses that carry a secret, before anything is stored; values are not shown."""
    for name in options:
        if _SECRET_NAME.search(name):
            raise UsageError(
                f"the option {name!r} looks like a secret, which never enters a table or a log",
                where=name,
                remedy="put the API key into the environment: OPENAI_API_KEY, or the variable that "
                "api_key_env names",
            )
    address = options.get("base_url")
    if not isinstance(address, str):
        return
    parts = urlsplit(address)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(
            "the server's address carries a user name, a password or a query",
            where="base_url",
            remedy="give the plain address; the API key comes from the environment",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            "the server's address must begin with http:// or https://",
            where="base_url",
            remedy="such as http://localhost:8000/v1",
        )


def hide_secrets(text: str, secrets: Iterable[str | None]) -> str:
    """Take every secret out of a text that came from a server."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, _HIDDEN)
    return text
