"""The options of a stage whose texts are written by a model: which engine runs it, and how."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from rlt_data.bounds import Count, Options, Tokens
from rlt_data.engines import ENGINE_HELP, EngineName, EngineOptions
from rlt_data.engines.openai.options import ServerOptions, read_server_options, refuse_secrets
from rlt_data.engines.vllm.options import select_model_options
from rlt_data.stages.runtime.contract import FreeField, ResolvedField, StageConfig


class EngineConfig(StageConfig):
    """How the engine runs. None of these fields is hashed by its value.

    A stage that inherits it enters what they resolve to into its identity: the model and, where it is served,
    the tokenizer that renders its prompts (`engine_models`), and `model_options`.
    """

    engine: FreeField[EngineName] = Field("auto", description=f"What runs the model. {ENGINE_HELP}.")
    base_url: ResolvedField[str | None] = Field(
        None, description="Address of an OpenAI-compatible server, such as http://localhost:8000/v1."
    )
    tokenizer: ResolvedField[str | None] = Field(
        None, description="Model whose chat template renders the prompts for a server; unset: the model's."
    )
    dtype: FreeField[str] = Field(
        "auto", description="Floating-point type: auto, float32, bfloat16 or float16."
    )
    device: FreeField[str] = Field("auto", description="Device: auto, cpu, cuda or mps.")
    max_batch_tokens: FreeField[Tokens | None] = Field(
        None, description="Maximum number of tokens in memory at once; unset: as memory allows."
    )
    max_batch_rows: FreeField[Count | None] = Field(
        None, description="Maximum number of texts generated at once; unset: depends on the device."
    )
    engine_options: ResolvedField[Options] = Field(
        default_factory=dict, description="Options passed to the engine."
    )

    @model_validator(mode="before")
    @classmethod
    def _keep_secrets_out(cls, data: Any) -> Any:
        """Refuse secrets before the configuration can be stored or shown."""
        if isinstance(data, dict):
            options = data.get("engine_options")
            refuse_secrets(options if isinstance(options, dict) else {})
            refuse_secrets({"base_url": data.get("base_url")})
        return data

    @model_validator(mode="after")
    def _check_server(self) -> EngineConfig:
        if self.base_url is not None and self.engine not in ("auto", "openai"):
            raise ValueError(f"base_url names a server, but the engine is {self.engine}")
        if self.is_served:
            # Checked here: an option that the connection does not have (such as a header) must not be stored.
            self.read_server_options()
        return self

    @property
    def is_served(self) -> bool:
        """Whether the model is behind a server."""
        return self.engine == "openai" or self.base_url is not None

    @property
    def uses_chat(self) -> bool:
        """Whether the user chose chat completions, for which no prompt is rendered here."""
        return self.is_served and self.engine_options.get("api") == "chat"

    @property
    def model_options(self) -> dict[str, Any]:
        """The engine options that change the model, such as quantization."""
        return {} if self.is_served else select_model_options(self.engine_options)

    def make_engine_options(self) -> EngineOptions:
        """Build the options of the engine."""
        server = {"base_url": self.base_url} if self.base_url is not None else {}
        return EngineOptions(
            dtype=self.dtype,
            device=self.device,
            max_batch_tokens=self.max_batch_tokens,
            max_batch_rows=self.max_batch_rows,
            extra={**self.engine_options, **server},
        )

    def read_server_options(self) -> ServerOptions:
        """Read the options of the connection to a server. Raises `UsageError` for one that does not exist."""
        return read_server_options(self.make_engine_options().extra)
