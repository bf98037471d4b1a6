"""Tiny random models with published tokenizers from ../shared and with small ones of our own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

SMALL = Path(__file__).parent / "formats" / "tokenizers"
SMALL_NAMES = sorted(path.name for path in SMALL.iterdir())
PUBLISHED_NAMES = ("deepseek_v3", "qwen3")


def save_model_with_tokenizer(source: Path, directory: Path) -> Path:
    """Save a random Qwen2 model (one layer, 16 hidden units) with the tokenizer files of `source`."""
    import torch
    from tokenizers import Tokenizer
    from transformers import Qwen2Config, Qwen2ForCausalLM

    size = Tokenizer.from_file(str(source / "tokenizer.json")).get_vocab_size()
    options: dict[str, Any] = {
        "vocab_size": size,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 16,
        "max_position_embeddings": 8192,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(Qwen2Config(**options))
    model.save_pretrained(directory)
    for path in source.iterdir():
        # The files of ../shared are read-only.
        shutil.copyfile(path, directory / path.name)
    return directory


class TokenizerModels:
    """Directories of such models by the tokenizer's name, each made once."""

    def __init__(self, folder: Path, shared: Path) -> None:
        self.folder = folder
        self.shared = shared
        self._tokenizers: dict[str, Any] = {}

    def find_source(self, name: str) -> Path:
        """The folder that holds a tokenizer's files; skips the test where it is absent."""
        if name in SMALL_NAMES:
            return SMALL / name
        source = self.shared / "data" / "tokenizers" / name
        if not source.is_dir():
            import pytest

            pytest.skip(f"no ../shared/data/tokenizers/{name} here")
        return source

    def save(self, name: str) -> Path:
        """Make the model with this tokenizer, or find it."""
        source, directory = self.find_source(name), self.folder / name
        return directory if directory.is_dir() else save_model_with_tokenizer(source, directory)

    def identify(self, name: str) -> Any:
        """Identify the model as every stage does."""
        from rlt_data.models import resolve_model

        return resolve_model(str(self.save(name)), role="student")

    def load(self, name: str) -> Any:
        """Load the tokenizer as every stage does."""
        from rlt_data.models import load_tokenizer

        if name not in self._tokenizers:
            self._tokenizers[name] = load_tokenizer(self.identify(name))
        return self._tokenizers[name]
