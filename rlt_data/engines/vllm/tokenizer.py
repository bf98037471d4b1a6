"""The tokenizer that vLLM loads: the one that the model's tokenizer.json describes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlt_data.errors import require_module
from rlt_data.models.tokenizer_file import follows_file


@contextmanager
def provide_tokenizer(directory: Path) -> Iterator[Path]:
    """Yield a directory from which `AutoTokenizer`, and so vLLM, loads the tokenizer in `directory` exactly.

    For some classes that a model names, `AutoTokenizer` does not split text as tokenizer.json defines, so
    that prompts would have other tokens than when they are scored. Then a temporary copy that names no such
    class is yielded.
    """
    transformers = require_module("transformers", "models")
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
    if not tokenizer.is_fast or follows_file(tokenizer, directory):
        yield directory
        return
    exact = transformers.PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
    with tempfile.TemporaryDirectory(prefix="rlt-data-tokenizer-") as copy:
        exact.save_pretrained(copy)
        yield Path(copy)
