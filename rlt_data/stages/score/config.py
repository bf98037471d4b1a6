"""What `rlt-data score` is told."""

from __future__ import annotations

from typing import Any, ClassVar, assert_never

from pydantic import Field, model_validator

from rlt_data.engines.openai.options import read_server_options, refuse_secrets
from rlt_data.engines.vllm.options import select_model_options
from rlt_data.reward.backends.opening import BACKEND_HELP, BACKENDS, BackendName
from rlt_data.reward.settings import RewardSettings
from rlt_data.stages.runtime.contract import StageConfig


class ScoreConfig(StageConfig):
    """What `rlt-data score` does."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset(
        {
            "memory",
            "pack_tokens",
            "batch_tokens",
            "estimate_from",
            "gap_rows",
            "max_gap",
            "base_url",
            "backend_options",
        }
    )

    students: tuple[str, ...] = Field(min_length=1, description="Student that reads the traces; repeatable.")
    teacher: str = Field(
        "auto",
        description="Whose log-probabilities stand on the teacher's side: auto (whoever wrote the trace; an "
        "imported trace has none), none (r_SS alone), or a model.",
    )
    where: str | None = Field(None, description="SQL predicate over traces; others are left alone.")
    format: str | None = Field(
        None, description="Conversation format; unset takes the trace's own, stratos where it names none."
    )
    temperature: float = Field(0.7, gt=0, description="The students' logits are divided by this.")
    teacher_temperature: float | None = Field(
        None, gt=0, description="The teacher's logits are divided by this; unset takes the students'."
    )
    exact: bool = Field(
        False,
        description="Also store the exact divergence over the vocabulary, which ranking prefers. "
        "Implied by the estimator full.",
    )
    rescore_teacher: bool = Field(
        False,
        description="Run the teacher even where the engine stored its log-probabilities with the trace, "
        "under the same weights and temperature.",
    )
    reward: RewardSettings = Field(default_factory=RewardSettings)
    noise_check: int = Field(
        0,
        ge=0,
        description="Score this many rows also in float32, one at a time, and report how far dtype and "
        "packing move rewards and rankings.",
    )
    gap_rows: int = Field(
        16, ge=0, description="Rows on which the engine's stored log-probabilities are compared with torch's."
    )
    max_gap: float = Field(
        0.1, gt=0, description="Stop where those differ by more than this on average, nats a token."
    )
    backend: BackendName = Field("torch", description=f"Where the models run: {BACKEND_HELP}.")
    base_url: str | None = Field(
        None, description="Address of the server of backend openai, such as http://localhost:8000/v1."
    )
    backend_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of vLLM, or of the connection to the server."
    )
    dtype: str = Field("auto", description="auto (float32 on a CPU), float32, bfloat16 or float16.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 and so on.")
    memory: str | None = Field(
        None, description="Memory beyond the models' weights, such as 8GiB; sizes of passes follow from it."
    )
    pack_tokens: int | None = Field(None, ge=1, description="Tokens of one forward pass, instead.")
    batch_tokens: int | None = Field(
        None, ge=1, description="Tokens of the texts prepared together, instead."
    )
    estimate_from: int = Field(
        256,
        ge=1,
        description="Say time and memory beforehand where at least this many texts are to be scored.",
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
            raise ValueError("a student is named twice")
        if self.teacher == "none" and self.stores_divergences:
            raise ValueError("the exact divergence needs a teacher: drop --exact, or name a teacher")
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
        """Those backend options that change the models, such as quantisation."""
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
