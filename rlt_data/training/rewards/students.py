"""Students of the reward: loaded here, in full or quantised, or behind a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

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
    """What scores explanations: of each request, one result a student, or failures."""

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[TokenScores | FailedScore]:
        """Score requests."""


class Students(Protocol):
    """The students of one reward."""

    @property
    def tokenizers(self) -> Sequence[Any]:
        """Their tokenizers."""

    def make_scorer(self, teacher: ScoringModel | None, *, exact: bool) -> AnyScorer:
        """Make a scorer of these students, with the teacher's side where one is given."""


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
        """Make a scorer over the models as they stand. Raises `UsageError` as `Scorer` does."""
        return Scorer(self._format, self.models, teacher, exact=exact, pack_tokens=self._pack_tokens)


class ServedStudents:
    """Students whose log-probabilities come from elsewhere, such as a vLLM server (`ServerBackend`)."""

    def __init__(self, format: ConversationFormat, backends: Sequence[LogprobBackend]) -> None:
        self.backends = list(backends)
        self._format = format

    @property
    def tokenizers(self) -> Sequence[Any]:
        """Their tokenizers."""
        return [backend.tokenizer for backend in self.backends]

    def make_scorer(self, teacher: ScoringModel | None, *, exact: bool) -> AnyScorer:
        """Make a scorer over the backends; the teacher runs here.

        Raises `UsageError` for the exact divergence, which needs whole distributions.
        """
        if exact:
            raise UsageError(
                "a served student gives the log-probabilities of its text's own tokens alone, and the exact "
                "divergence needs whole distributions",
                remedy="use the estimator k1 or k3, or load the student here",
            )
        students = [partial(_lend, backend) for backend in self.backends]
        own = partial(_lend, TorchBackend(teacher)) if teacher is not None else None
        return PromptScorer(self._format, students, own)


@contextmanager
def _lend(backend: LogprobBackend) -> Iterator[LogprobBackend]:
    yield backend


def open_served_student(name: str, temperature: float, options: Mapping[str, Any]) -> LogprobBackend:
    """Open a student behind a vLLM server; `options` are those of `ServerOptions`, `base_url` among them.

    Its tokenizer must be on this machine. Raises `UsageError` for a temperature other than 1, which a
    server does not apply to the texts that it is given.
    """
    from rlt_data.reward.backends.openai import ServerBackend

    identity = resolve_model(name, role="student", need="tokenizer")
    return ServerBackend(identity, temperature, options=options)


def load_student(
    name: str,
    temperature: float,
    *,
    dtype: str = "auto",
    device: str = "auto",
    quantization: Quantization = "none",
) -> ScoringModel:
    """Load a frozen student by name for scoring at `temperature`; quantised weights need bitsandbytes.

    Raises `ModelError`, or `MissingExtraError` without bitsandbytes.
    """
    identity = resolve_model(name, role="student")
    with _keep_whole():
        if quantization == "none":
            model = load_model(identity, dtype=dtype, device=device)
        else:
            model = _load_quantized(identity.require_directory(), quantization, device)
    return ScoringModel(name, model, load_tokenizer(identity), temperature)


@contextmanager
def _keep_whole() -> Iterator[None]:
    """Load whole models while a training under ZeRO-3 has transformers spread all that it loads."""
    integration: Any = require_module("transformers.integrations.deepspeed", "train")
    kept = integration._hf_deepspeed_config_weak_ref
    integration.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        integration._hf_deepspeed_config_weak_ref = kept


def _load_quantized(directory: Path, quantization: Quantization, device: str) -> Any:
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError(
            "8-bit and 4-bit students need the package 'bitsandbytes', which is not installed",
            remedy="pip install bitsandbytes",
        )
    transformers = require_module("transformers", "train")
    config = transformers.BitsAndBytesConfig(
        load_in_8bit=quantization == "8bit", load_in_4bit=quantization == "4bit"
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory,
        quantization_config=config,
        device_map={"": choose_device(device)},
        local_files_only=True,
        use_safetensors=True,
    )
    return model.eval().requires_grad_(False)
