"""Options of `rlt-data score`."""

from __future__ import annotations

from typing import Annotated, Any, assert_never

from pydantic import Field, model_validator

from rlt_data.bounds import MemorySize, Nats, Options, Rows, Temperature, Tokens
from rlt_data.engines.openai.options import read_server_options, refuse_secrets
from rlt_data.engines.vllm.options import select_model_options
from rlt_data.reward.backends.opening import BACKEND_HELP, BACKENDS, BackendName
from rlt_data.reward.settings import RewardSettings
from rlt_data.stages.runtime.contract import (
    FreeField,
    LaterRunField,
    Over,
    ResolvedField,
    RowField,
    RunField,
    StageConfig,
)


class ScoreConfig(StageConfig):
    """Which traces are scored, with which models, and how."""

    students: RunField[tuple[str, ...]] = Field(
        min_length=1, description="Student model that scores the traces; repeatable."
    )
    teacher: RunField[str] = Field(
        "auto",
        description="Model that computes the teacher log-probabilities: auto (the one that wrote the trace; "
        "an imported trace has none), none (score r_SS only), or a model.",
    )
    where: RunField[Annotated[str | None, Over("traces")]] = Field(
        None, description="SQL predicate over traces: use only these."
    )
    limit: LaterRunField[Rows | None] = Field(
        None, description="Use only the first N traces, question by question."
    )
    format: RunField[str | None] = Field(
        None, description="Conversation format; unset: the trace's own, or stratos where it names none."
    )
    temperature: RowField[Temperature] = Field(0.7, description="Student logits are divided by this.")
    teacher_temperature: RowField[Temperature | None] = Field(
        None, description="Teacher logits are divided by this; unset: the student temperature."
    )
    exact: RowField[bool] = Field(
        False,
        description="Also store the exact divergence over the vocabulary, which ranking prefers; implied by "
        "the estimator full.",
    )
    rescore_teacher: RowField[bool] = Field(
        False,
        description="Run the teacher even where the engine stored its log-probabilities with the trace, "
        "under the same weights and temperature.",
    )
    reward: RunField[RewardSettings] = Field(default_factory=RewardSettings)
    noise_check: RunField[int] = Field(
        0,
        ge=0,
        le=10**9,
        description="Score this many rows again in float32, one at a time, and report how much dtype and "
        "packing change rewards and rankings.",
    )
    gap_rows: FreeField[int] = Field(
        16,
        ge=0,
        le=10**9,
        description="Rows on which log-probabilities stored by the engine are compared with torch's.",
    )
    max_gap: FreeField[Nats] = Field(
        0.1, description="Stop where those differ by more than this on average, in nats per token."
    )
    backend: RowField[BackendName] = Field("torch", description=f"Where the models run: {BACKEND_HELP}.")
    base_url: ResolvedField[str | None] = Field(
        None, description="Address of the server of backend openai, such as http://localhost:8000/v1."
    )
    backend_options: ResolvedField[Options] = Field(
        default_factory=dict, description="Options of vLLM, or of the connection to the server."
    )
    dtype: RunField[str] = Field(
        "auto", description="Floating-point type: auto (float32 on a CPU), float32, bfloat16 or float16."
    )
    # Part of fingerprints since the first version, though it does not change what is scored.
    device: RunField[str] = Field("auto", description="Device: auto, cpu, cuda, cuda:1 and so on.")
    memory: FreeField[MemorySize | None] = Field(
        None, description="Memory to use beyond the models' weights, such as 8GiB; it sets the sizes below."
    )
    pack_tokens: FreeField[Tokens | None] = Field(None, description="Tokens of one forward pass.")
    batch_tokens: FreeField[Tokens | None] = Field(
        None, description="Tokens of the texts that are prepared together."
    )
    estimate_from: FreeField[Rows] = Field(
        256, description="Print an estimate of time and memory before scoring at least this many texts."
    )

    @model_validator(mode="before")
    @classmethod
    def _keep_secrets_out(cls, data: Any) -> Any:
        """Refuse secrets before the configuration can be stored or shown."""
        if isinstance(data, dict):
            options = data.get("backend_options")
            refuse_secrets(options if isinstance(options, dict) else {})
            refuse_secrets({"base_url": data.get("base_url")})
        return data

    @model_validator(mode="after")
    def _check(self) -> ScoreConfig:
        if len(set(self.students)) < len(self.students):
            raise ValueError("the same student is given twice")
        if self.teacher == "none" and self.stores_divergences:
            raise ValueError("the exact divergence needs a teacher: remove --exact, or set a teacher")
        self._check_backend()
        return self

    def _check_backend(self) -> None:
        entry = BACKENDS[self.backend]
        if self.stores_divergences and not entry.exact:
            raise ValueError(
                f"backend {self.backend} returns the log-probabilities of a text's own tokens only, and the "
                "exact divergence (estimator full) needs the whole distributions of both models: use backend "
                "torch"
            )
        if entry.served and self.base_url is None:
            raise ValueError(f"backend {self.backend} needs base_url, the address of the server")
        if self.base_url is not None and not entry.served:
            raise ValueError(f"base_url names a server, but the backend is {self.backend}")
        if entry.served and self.noise_check:
            raise ValueError(
                f"the noise check runs the students on this machine; with backend {self.backend} they are "
                "behind a server"
            )
        match self.backend:
            case "torch":
                pass
            case "vllm":
                if "dtype" in self.backend_options:
                    raise ValueError(
                        "set dtype itself, not as a backend option: it is stored with each score"
                    )
            case "openai":
                self._check_server()
            case _:
                assert_never(self.backend)

    def _check_server(self) -> None:
        options = read_server_options({**self.backend_options, "base_url": self.base_url})
        if options.served_model is not None and len(self.students) > 1:
            raise ValueError("served_model names one model, and there are several students")
        if self.temperature != 1.0:
            raise ValueError(
                f"a server's prompt_logprobs are those of temperature 1, not {self.temperature:g}: set "
                "temperature to 1; or use backend vllm or torch, where the model's files are on this machine"
            )

    @property
    def model_options(self) -> dict[str, Any]:
        """The backend options that change the models, such as quantization."""
        match self.backend:
            case "vllm":
                return select_model_options(self.backend_options)
            case "torch" | "openai":
                return {}
            case _:
                assert_never(self.backend)

    @property
    def stores_divergences(self) -> bool:
        """Whether the exact divergence is computed."""
        return self.exact or self.reward.needs_divergences

    @property
    def model_temperatures(self) -> tuple[float, float]:
        """Temperature of the students and of the teacher."""
        return self.temperature, self.teacher_temperature or self.temperature
