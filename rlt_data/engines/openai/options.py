"""Options of the connection to an OpenAI-compatible server; secrets come only from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import pydantic

from rlt_data.bounds import STRICT, Count, Seconds
from rlt_data.errors import UsageError
from rlt_data.suggestions import suggest_name
from rlt_data.validation import describe_problem

# Names of secrets; must not match `tokenizer_mode` or `long_prefill_token_threshold`.
_SECRET_NAME = re.compile(
    r"keys?$|token$|secret|passw|authori|credential|bearer|header|cookie", re.IGNORECASE
)
_HIDDEN = "[hidden]"


class ServerOptions(pydantic.BaseModel):
    """How to connect to a server. All times are in seconds."""

    model_config = pydantic.ConfigDict(**STRICT, hide_input_in_errors=True)

    base_url: str
    """Address including the version, such as http://localhost:8000/v1."""
    served_model: str | None = None
    """The model's name at the server, where it differs from the teacher's."""
    api: Literal["auto", "completions", "chat"] = "auto"
    """Endpoint; `auto` prefers completions, since only they can prefill a turn."""
    concurrency: Count = pydantic.Field(64)
    """Requests in flight at once."""
    timeout: Seconds = pydantic.Field(1800.0)
    """Time limit of one try of a request."""
    total_timeout: Seconds = pydantic.Field(7200.0)
    """Time limit of one request, with all its tries and the pauses between them."""
    attempts: Count = pydantic.Field(6)
    """How often a request is tried before it fails for good."""
    backoff: Seconds = pydantic.Field(0.5)
    """Longest first pause between tries; it doubles with each try."""
    longest_pause: Seconds = pydantic.Field(60.0)
    """Longest pause between tries, unless the server's Retry-After is longer."""
    ready_timeout: Seconds = pydantic.Field(120.0)
    """Time for the server to become ready, at the start and after it was unreachable."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the API key, if the server requires one."""

    @property
    def api_key(self) -> str | None:
        """The API key without surrounding whitespace, or None where the environment has none.

        Raises `UsageError` for a key that cannot be sent in a header, without showing it.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise UsageError(
                "the API key contains characters that cannot be sent in a header",
                where=f"environment variable {self.api_key_env}",
                remedy="set it without line breaks, quotation marks or other additions",
            )
        return key or None


def read_server_options(options: Mapping[str, Any]) -> ServerOptions:
    """Read the options. Raises `UsageError` naming the one that is wrong; values are never shown."""
    refuse_secrets(options)
    if not options.get("base_url"):
        raise UsageError(
            "the engine 'openai' needs the address of a server",
            where="base_url",
            remedy="add --base-url http://localhost:8000/v1",
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
    """Refuse options and addresses that contain a secret, before anything is stored.

    Raises `UsageError`, which never shows the value.
    """
    for name in options:
        if _SECRET_NAME.search(name):
            raise UsageError(
                f"the option {name!r} looks like a secret, and options are stored in tables and logs",
                where=name,
                remedy="set the API key in the environment variable OPENAI_API_KEY, or in the one that "
                "api_key_env names",
            )
    address = options.get("base_url")
    if not isinstance(address, str):
        return
    if not address.isprintable() or " " in address:
        raise UsageError(
            "the server's address contains spaces or control characters",
            where="base_url",
            remedy="such as http://localhost:8000/v1",
        )
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise UsageError(
            "the server's address is not valid: its port should be from 1 to 65535, and its host a name "
            "or an IP address",
            where="base_url",
            remedy="such as http://localhost:8000/v1",
        ) from error
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(
            "the server's address contains a user name, a password or a query",
            where="base_url",
            remedy="use the plain address; the API key comes from the environment",
        )
    if port == 0:
        raise UsageError(
            "the server's address has the port 0, which no server has",
            where="base_url",
            remedy="such as http://localhost:8000/v1",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            "the server's address must begin with http:// or https://",
            where="base_url",
            remedy="such as http://localhost:8000/v1",
        )


def hide_secrets(text: str, secrets: Iterable[str | None]) -> str:
    """Replace every secret in a text that came from a server."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, _HIDDEN)
    return text
