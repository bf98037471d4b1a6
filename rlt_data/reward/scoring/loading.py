"""Models loaded for scoring, each once, even if it is both teacher and student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlt_data.models import ModelIdentity, load_model, load_tokenizer
from rlt_data.reward.scoring.scoring_model import ScoringModel


class ModelCache:
    """Loads models on demand and keeps them until they are no longer needed."""

    def __init__(self, *, dtype: str, device: str) -> None:
        self._dtype = dtype
        self._device = device
        self._loaded: dict[str, tuple[Any, Any]] = {}

    def load(self, identity: ModelIdentity, temperature: float) -> ScoringModel:
        """Return a model at a temperature, loading it the first time. Raises `ModelError`."""
        key = identity.content_key
        if key not in self._loaded:
            model = load_model(identity, dtype=self._dtype, device=self._device)
            self._loaded[key] = (model, load_tokenizer(identity))
        model, tokenizer = self._loaded[key]
        return ScoringModel(identity.name, model, tokenizer, temperature)

    def keep_only(self, identities: Sequence[ModelIdentity]) -> None:
        """Drop every other model."""
        keys = {identity.content_key for identity in identities}
        for key in [key for key in self._loaded if key not in keys]:
            del self._loaded[key]
