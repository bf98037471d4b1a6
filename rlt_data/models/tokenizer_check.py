"""Check a loaded tokenizer: it has a vocabulary, and the model has an embedding for each of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from rlt_data.errors import ModelError
from rlt_data.models.files import read_json

_SAMPLE = "The answer is 24."
# Only tokenizers that have tokens without an embedding: the number of embeddings of their model.
_embeddings: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def check_tokenizer(tokenizer: Any, directory: Path, weights: Path, model: str) -> None:
    """Check a fast tokenizer loaded from `directory`, for the model in `weights`; messages name `model`.

    Added tokens without an embedding are accepted where the chat template does not write them: some models
    have tokens of other modalities (see `find_token_without_embedding`). Raises `ModelError`.
    """
    backend = tokenizer.backend_tokenizer
    words = backend.get_vocab_size(with_added_tokens=False)
    if words <= 1 or not backend.encode(_SAMPLE, add_special_tokens=False).ids:
        missing = not (directory / "tokenizer.json").is_file()
        raise ModelError(
            "the tokenizer has no vocabulary"
            + (", because the model has no tokenizer.json" if missing else ": it turns text into no tokens"),
            where=model,
            remedy="copy tokenizer.json and tokenizer_config.json from the model that it was made from",
        )
    limit = _count_embeddings(weights)
    beyond = {} if limit is None else {t: i for t, i in tokenizer.get_vocab().items() if i >= limit}
    if limit is None:
        return
    if not beyond:
        _check_end_tokens(weights, limit)
        return
    added = tokenizer.added_tokens_encoder
    template = str(tokenizer.chat_template or "")
    needed = [
        token for token in beyond if token not in added or token == tokenizer.eos_token or token in template
    ]
    if needed:
        first = min(needed, key=lambda token: beyond[token])
        raise ModelError(
            f"the tokenizer has tokens that the model has no embedding for: {first!r} is token "
            f"{beyond[first]}, and the model has {limit} embeddings ({len(needed)} such tokens)",
            where=model,
            remedy="use the tokenizer that belongs to the model, or resize its embeddings and save it again",
        )
    _check_end_tokens(weights, limit)
    _embeddings[tokenizer] = limit


def find_token_without_embedding(tokenizer: Any, token_ids: Sequence[int]) -> str | None:
    """Return the first of `token_ids` that its model has no embedding for, as text; None where all have."""
    limit = _embeddings.get(tokenizer)
    if limit is None:
        return None
    found = next((token for token in token_ids if token >= limit), None)
    return None if found is None else str(tokenizer.convert_ids_to_tokens(found))


def refuse_tokenizer_paths(directory: Path) -> None:
    """Raise `ModelError` where the tokenizer's configuration names files outside `directory`."""
    file = directory / "tokenizer_config.json"
    if not file.is_file():
        return
    config = read_json(file)
    named = config.get("fast_tokenizer_files") or []
    for name in named if isinstance(named, list) else [named]:
        if not isinstance(name, str) or Path(name.replace("\\", "/")).name != name:
            raise ModelError(
                f"the tokenizer's configuration names {name!r}, which is outside the model's directory",
                where=str(file),
                remedy="remove fast_tokenizer_files from this file",
            )


def _check_end_tokens(directory: Path, limit: int) -> None:
    """Raise `ModelError` where the model is to stop at a token that it has no embedding for."""
    for name in ("generation_config.json", "config.json"):
        file = directory / name
        raw = read_json(file) if file.is_file() else {}
        text = raw.get("text_config")
        for config in (raw, text if isinstance(text, dict) else {}):
            end = config.get("eos_token_id")
            for token in end if isinstance(end, list) else [] if end is None else [end]:
                # Some models have -1: none.
                if type(token) is not int or not -1 <= token < limit:
                    raise ModelError(
                        f"eos_token_id should be a token from 0 to {limit - 1:,}, found {str(token)[:80]}",
                        where=str(file),
                        remedy="set it to the end token of the model's tokenizer",
                    )


def _count_embeddings(directory: Path) -> int | None:
    """Return the rows of the embedding matrix by the model's configuration; None where it does not say."""
    file = directory / "config.json"
    if not file.is_file():
        return None
    raw = read_json(file)
    text = raw.get("text_config")
    size = {**raw, **(text if isinstance(text, dict) else {})}.get("vocab_size")
    return size if type(size) is int and size > 0 else None
