"""What `rlt-data generate` is told."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from rlt_data.engines import ENGINE_HELP, EngineName, EngineOptions
from rlt_data.engines.openai.options import read_server_options, refuse_secrets
from rlt_data.engines.vllm.options import select_model_options
from rlt_data.stages.runtime.run import StageConfig


class GenerateConfig(StageConfig):
    """What to generate. The defaults of sampling are the paper's, but for the length limit."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset(
        {
            "teacher",
            "format",
            "engine",
            "base_url",
            "tokenizer",
            "dtype",
            "device",
            "max_batch_tokens",
            "max_batch_rows",
            "engine_options",
            "student",
            "student_context",
            "max_truncated_share",
            "allow_truncated",
        }
    )

    teacher: tuple[str, ...] = Field(
        min_length=1, description="The teacher: an alias, a hub id or a local path; repeatable."
    )
    samples: int = Field(1, ge=1, description="Explanations a question, of each teacher.")
    format: str = Field("stratos", description="Conversation format: stratos, r1, or one of your own.")
    temperature: float = Field(0.7, ge=0, description="Sampling temperature; 0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling mass; 1 is off.")
    top_k: int = Field(0, ge=0, description="Sample from the k likeliest tokens; 0 is off.")
    max_tokens: int = Field(4096, ge=1, description="Limit on the tokens of an explanation.")
    seed: int = Field(0, description="Seed of the whole generation.")
    where: str | None = Field(None, description="SQL predicate over questions: explain only these.")
    limit: int | None = Field(None, ge=1, description="Explain only the first so many questions.")
    engine: EngineName = Field("auto", description=f"What runs the teacher. {ENGINE_HELP}.")
    base_url: str | None = Field(
        None, description="Address of an OpenAI-compatible server, such as http://localhost:8000/v1."
    )
    tokenizer: str | None = Field(
        None, description="Model whose chat template renders the prompts for a server; unset: the teacher's."
    )
    dtype: str = Field("auto", description="Floating-point type: auto, float32, bfloat16 or float16.")
    device: str = Field("auto", description="Where to compute: auto, cpu, cuda, mps.")
    max_batch_tokens: int | None = Field(None, ge=1, description="Tokens held at once; default by memory.")
    max_batch_rows: int | None = Field(None, ge=1, description="Texts written at once; default by device.")
    engine_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the engine itself, passed through."
    )
    overlong: Literal["keep", "drop", "resample"] = Field(
        "keep",
        description="Explanations whose student text exceeds the student's context: keep them, drop them, or "
        "draw them again.",
    )
    resamples: int = Field(4, ge=1, description="How often an over-long explanation is drawn again.")
    student: str | None = Field(None, description="The student whose context is the measure of over-long.")
    student_context: int | None = Field(
        None, ge=1, description="Longest student text in tokens; unset: the context of the student's model."
    )
    max_truncated_share: float = Field(
        0.3, ge=0, le=1, description="Stop where more than this share is cut off by max_tokens."
    )
    allow_truncated: bool = Field(False, description="Go on however many are cut off.")

    @model_validator(mode="before")
    @classmethod
    def _keep_secrets_out(cls, data: Any) -> Any:
        """Refuse secrets before the configuration can be stored or shown."""
        if isinstance(data, dict):
            options = data.get("engine_options")
            refuse_secrets(options if isinstance(options, dict) else {})
            refuse_secrets({"base_url": data.get("base_url")})
        return data

    @field_validator("teacher", mode="before")
    @classmethod
    def _accept_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> GenerateConfig:
        if len(set(self.teacher)) < len(self.teacher):
            raise ValueError("a teacher is named twice")
        if self.base_url is not None and self.engine not in ("auto", "openai"):
            raise ValueError(f"base_url names a server, but the engine is {self.engine}")
        if self.overlong != "keep" and self.student is None:
            raise ValueError(f"overlong = {self.overlong!r} needs the student whose context is the measure")
        if self.is_served:
            # Here, since what is no option of the connection (a header, say) must not be stored.
            options = read_server_options(self.make_engine_options().extra)
            if options.served_model is not None and len(self.teacher) > 1:
                raise ValueError("served_model names one model, and there are several teachers")
        return self

    @property
    def is_served(self) -> bool:
        """Whether the teacher is behind a server."""
        return self.engine == "openai" or self.base_url is not None

    @property
    def model_options(self) -> dict[str, Any]:
        """Those engine options that change the teacher, such as quantisation."""
        return {} if self.is_served else select_model_options(self.engine_options)

    def make_engine_options(self) -> EngineOptions:
        """Build the options that the engine gets."""
        server = {"base_url": self.base_url} if self.base_url is not None else {}
        return EngineOptions(
            dtype=self.dtype,
            device=self.device,
            max_batch_tokens=self.max_batch_tokens,
            max_batch_rows=self.max_batch_rows,
            extra={**self.engine_options, **server},
        )
