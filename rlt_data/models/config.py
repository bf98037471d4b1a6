"""The shape of a model from its `config.json`, read without loading the model or any framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlt_data.errors import ModelError
from rlt_data.models.config_check import MOST_SIZES
from rlt_data.models.files import read_json
from rlt_data.models.identity import ModelIdentity

# transformers sets the limit of a tokenizer without one to a huge number.
_NO_LIMIT = 1_000_000_000


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a decoder model; sizes in elements, `context` in tokens, `parameters` estimated.

    `dtype` is the type of the saved weights, such as `bfloat16`; `end_token_ids` are those of the
    generation configuration where there is one.
    """

    architecture: str
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    head_dimension: int
    feed_forward: int
    context: int | None
    dtype: str | None
    tied_embeddings: bool
    end_token_ids: tuple[int, ...]
    raw: Mapping[str, Any]

    @property
    def parameters(self) -> int:
        """Parameters of a dense decoder of this shape: embeddings, attention, gated feed-forward, norms."""
        attention = self.hidden * self.head_dimension * (2 * self.heads + 2 * self.key_value_heads)
        layer = attention + 3 * self.hidden * self.feed_forward + 2 * self.hidden
        embeddings = self.vocabulary * self.hidden * (1 if self.tied_embeddings else 2)
        return embeddings + self.layers * layer + self.hidden

    def count_cache_bytes(self, bytes_per_element: int) -> int:
        """Count the bytes of keys and values of one token in all layers."""
        return 2 * self.layers * self.key_value_heads * self.head_dimension * bytes_per_element


def read_model_config(identity: ModelIdentity) -> ModelConfig:
    """Read the configuration of a resolved model (of the base model, for an adapter).

    Raises `ModelError` where it is missing, or is not that of a decoder language model.
    """
    if identity.base is not None:
        return read_model_config(identity.base)
    return read_config_file(identity.require_directory())


def find_context(identity: ModelIdentity, tokenizer: Any) -> int | None:
    """Return the context length in tokens: the smaller limit of model and tokenizer; None without any."""
    limits = [read_model_config(identity).context, getattr(tokenizer, "model_max_length", None)]
    stated = [int(limit) for limit in limits if limit and limit < _NO_LIMIT]
    return min(stated, default=None)


def read_config_file(directory: Path) -> ModelConfig:
    """Read `config.json` and `generation_config.json` in `directory`; see `read_model_config`."""
    file = directory / "config.json"
    raw = read_json(file)
    inner = raw.get("text_config")
    text = {**raw, **(inner if isinstance(inner, dict) else {})}
    generation = directory / "generation_config.json"
    end: Any = text.get("eos_token_id")
    if generation.is_file():
        end = read_json(generation).get("eos_token_id", end)
    try:
        heads = _read_size(text, "num_attention_heads")
        hidden = _read_size(text, "hidden_size")
        context = text.get("max_position_embeddings")
        return ModelConfig(
            architecture=str((raw.get("architectures") or [raw.get("model_type", "unknown")])[0]),
            vocabulary=_read_size(text, "vocab_size"),
            hidden=hidden,
            layers=_read_size(text, "num_hidden_layers"),
            heads=heads,
            key_value_heads=_read_size(text, "num_key_value_heads", heads),
            head_dimension=_read_size(text, "head_dim", hidden // heads),
            feed_forward=_read_size(text, "intermediate_size", 4 * hidden),
            context=None if context is None else int(context),
            dtype=text.get("dtype") or text.get("torch_dtype"),
            tied_embeddings=bool(text.get("tie_word_embeddings", False)),
            end_token_ids=tuple(end if isinstance(end, list) else [] if end is None else [end]),
            raw=raw,
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"this is not the configuration of a decoder language model ({error!r})", where=str(file)
        ) from error


def _read_size(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """Read a size; `default` replaces one that is absent or null. Raises `ValueError` out of range."""
    value = config[name] if default is None else config.get(name) or default
    most = MOST_SIZES[name]
    if int(value) != value or not 1 <= value <= most:
        raise ValueError(f"{name} should be an integer from 1 to {most:,}, found {str(value)[:80]}")
    return int(value)
