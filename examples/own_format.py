"""Define a conversation format in TOML, and find explanation and solution by their character spans."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rlt_data.formats import load_format, render_student_text
from rlt_data.training.from_scratch.tiny_model import build_tiny_tokenizer

FORMAT = """
base = "r1"

[student]
system = "You are a patient tutor."
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tutor.toml"
        path.write_text(FORMAT, encoding="utf-8")
        format = load_format(str(path))

    tokenizer = build_tiny_tokenizer([])
    # The explanation contains a closing tag: spans are offsets from rendering, not found by searching.
    rendered = render_student_text(
        format, tokenizer, "What is 2 + 3?", "Count on from 2. </think> is only text here.", "2 + 3 = 5."
    )
    print(rendered.text)
    for name in ("think", "solution"):
        start, end = rendered.spans[name]
        print(f"{name}: {rendered.text[start:end]!r}")


if __name__ == "__main__":
    main()
