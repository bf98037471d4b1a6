"""Students of the reward: loaded in this process, quantized or not, or behind a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, assert_never

from rlt_data.errors import MissingExtraError, UsageError, require_module
from rlt_data.formats import ConversationFormat
from rlt_data.models import load_model, load_tokenizer, resolve_model
from rlt_data.models.loading import choose_device
from rlt_data.reward.backends.base import LogprobBackend
from rlt_data.reward.backends.prompt_scorer import PromptScorer
from rlt_data.reward.backends.torch import TorchBackend
from rlt_data.reward.scoring.scorer import FailedScore, Scorer, TokenScores
from rlt_data.reward.scoring.scoring_model import ScoringModel
from rlt_data.reward.scoring.texts import ScoreRequest

Quantization = Literal["none", "8bit", "4bit"]


class AnyScorer(Protocol):
    """Scores explanations: one result per request and student."""

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[TokenScores | FailedScore]:
        """Score requests."""


class Students(Protocol):
    """The students of one reward."""

    @property
    def tokenizers(self) -> Sequence[Any]:
        """Their tokenizers."""

    def make_scorer(self, teacher: ScoringModel | None, *, exact: bool) -> AnyScorer:
        """Make a scorer of these students, and of the teacher where one is given."""


class LoadedStudents:
    """Students whose models are in this process."""

    def __init__(
        self, format: ConversationFormat, models: Sequence[ScoringModel], *, pack_tokens: int | None = None
    ) -> None:
        self.models = list(models)
        self._format = format
        self._pack_tokens = pack_tokens

    @property
    def tokenizers(self) -> Sequence[Any]:
        """Their tokenizers."""
        return [model.tokenizer for model in self.models]

    def make_scorer(self, teacher: ScoringModel | None, *, exact: bool) -> AnyScorer:
        """Make a scorer of the models. Raises `UsageError` as `Scorer` does."""
        return Scorer(self._format, self.models, teacher, exact=exact, pack_tokens=self._pack_tokens)


class ServedStudents:
    """Students whose log-probabilities come from a backend, such as a vLLM server (`ServerBackend`)."""

    def __init__(self, format: ConversationFormat, backends: Sequence[LogprobBackend]) -> None:
        self.backends = list(backends)
        self._format = format

    @property
    def tokenizers(self) -> Sequence[Any]:
        """Their tokenizers."""
        return [backend.tokenizer for backend in self.backends]

    def make_scorer(self, teacher: ScoringModel | None, *, exact: bool) -> AnyScorer:
        """Make a scorer of the backends; the teacher runs in this process.

        Raises `UsageError` for the exact divergence, which needs whole distributions.
        """
        if exact:
            raise UsageError(
                "a server returns the log-probabilities of a text's own tokens only, and the estimator full "
                "needs whole distributions",
                remedy="use the estimator k1 or k3, or load the student instead",
            )
        students = [partial(_keep_open, backend) for backend in self.backends]
        own = partial(_keep_open, TorchBackend(teacher)) if teacher is not None else None
        return PromptScorer(self._format, students, own)


@contextmanager
def _keep_open(backend: LogprobBackend) -> Iterator[LogprobBackend]:
    yield backend


def open_served_student(
    name: str,
    temperature: float,
    options: Mapping[str, Any],
    *,
    notify: Callable[[str], None] | None = None,
) -> LogprobBackend:
    """Open a student behind a vLLM server; `options` are those of `ServerOptions`, `base_url` among them.

    Its tokenizer must be on this machine. `notify` gets a sentence whenever the server is waited for. Raises
    `UsageError` for a temperature other than 1: a server applies none to the texts that it scores.
    """
    from rlt_data.reward.backends.openai import ServerBackend

    identity = resolve_model(name, role="student", need="tokenizer")
    return ServerBackend(identity, temperature, options=options, notify=notify)


def load_student(
    name: str,
    temperature: float,
    *,
    dtype: str = "auto",
    device: str = "auto",
    quantization: Quantization = "none",
) -> ScoringModel:
    """Load a frozen student by name for scoring at `temperature`; quantization needs bitsandbytes.

    Raises `ModelError`, or `MissingExtraError` without bitsandbytes.
    """
    identity = resolve_model(name, role="student")
    with _avoid_sharding():
        match quantization:
            case "none":
                model = load_model(identity, dtype=dtype, device=device)
            case "8bit":
                model = _load_quantized(identity.require_directory(), {"load_in_8bit": True}, device)
            case "4bit":
                model = _load_quantized(identity.require_directory(), {"load_in_4bit": True}, device)
            case never:
                assert_never(never)
    return ScoringModel(name, model, load_tokenizer(identity), temperature)


@contextmanager
def _avoid_sharding() -> Iterator[None]:
    """Load whole models; a training under ZeRO-3 makes transformers shard every model that it loads."""
    integration: Any = require_module("transformers.integrations.deepspeed", "train")
    kept = integration._hf_deepspeed_config_weak_ref
    integration.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        integration._hf_deepspeed_config_weak_ref = kept


def _load_quantized(directory: Path, options: Mapping[str, bool], device: str) -> Any:
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError(
            "8-bit and 4-bit students need the package 'bitsandbytes', which is not installed",
            remedy="pip install bitsandbytes",
        )
    transformers = require_module("transformers", "train")
    config = transformers.BitsAndBytesConfig(**options)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory,
        quantization_config=config,
        device_map={"": choose_device(device)},
        local_files_only=True,
        use_safetensors=True,
    )
    return model.eval().requires_grad_(False)
