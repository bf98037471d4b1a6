"""Check whether a loaded tokenizer splits text as its tokenizer.json defines.

transformers 5 rebuilds a tokenizer from its vocabulary where `tokenizer_config.json` names a class such as
`LlamaTokenizerFast`, and takes normalizer and pre-tokenizer from that class, not from tokenizer.json.
DeepSeek's tokenizers, and those of the Llama models distilled from R1, name that class although they split
text otherwise: loaded so, they lose every space.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rlt_data.errors import ModelError

# Only the post-processor's `trim_offsets` has an effect.
_NO_EFFECT = re.compile(r"(?:, )?trim_offsets=(?:True|False)")


def follows_file(tokenizer: Any, directory: Path) -> bool:
    """Return whether a fast tokenizer normalizes and splits text as `directory`/tokenizer.json defines.

    True where there is no such file, or where it cannot be read.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        return True
    from tokenizers import Tokenizer

    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
        # Without its vocabulary, which takes most of the time and is not what classes change.
        bare = {
            "version": parts.get("version", "1.0"),
            "normalizer": parts.get("normalizer"),
            "pre_tokenizer": parts.get("pre_tokenizer"),
            "model": {"type": "BPE", "vocab": {}, "merges": []},
        }
        filed = Tokenizer.from_str(json.dumps(bare))
    except Exception:  # tokenizers raises plain Exception; the loader reports what is wrong with the file
        return True
    return _describe(filed) == _describe(tokenizer.backend_tokenizer)


def refuse_tokenizer_file(directory: Path) -> None:
    """Raise `ModelError` where `directory`/tokenizer.json exists and does not define a tokenizer."""
    path = directory / "tokenizer.json"
    if not path.is_file():
        return
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise ModelError(
            f"the file does not define a tokenizer: {error}",
            where=str(path),
            remedy="copy tokenizer.json and tokenizer_config.json from the model that it was made from",
        ) from error


def _describe(backend: Any) -> tuple[str, str]:
    normalizer = repr(backend.normalizer)
    if normalizer == "Sequence(normalizers=[])":
        normalizer = repr(None)
    return normalizer, _NO_EFFECT.sub("", repr(backend.pre_tokenizer))
