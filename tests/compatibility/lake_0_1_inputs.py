"""What the lake of version 0.1 was made from: problems, some of them unusable, and two tiny models."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlt_data.formats import load_format
from rlt_data.models.tiny import TinyShape, build_tiny_model, build_tiny_tokenizer, save_model
from rlt_data.progress import Reporter
from rlt_data.training.examples import Explained, build_student_examples, build_teacher_examples
from rlt_data.training.fresh import train_tiny

SHAPE = TinyShape(hidden_size=16, layers=1, heads=2, key_value_heads=2, feed_forward=32, context=512)
FORMATS = ("r1", "stratos")
WORDS = (
    "What is ", " + ", "?", "Add them: ", " = ", ". The answer is \\boxed{", "}.", "Take ", ".\n\nThen add ",
    ", which makes ", ".\n\nSo it is ", "system", "user", "assistant", "\n", "\n\n",
)  # fmt: skip
TRAINING_STEPS = 240


def explain(one: int, other: int) -> Explained:
    """Write a question with its solution and an explanation of it."""
    total = one + other
    return Explained(
        f"What is {one} + {other}?",
        f"Add them: {one} + {other} = {total}. The answer is \\boxed{{{total}}}.",
        f"Take {one}.\n\nThen add {other}, which makes {total}.\n\nSo it is {total}.",
    )


def write_problems(folder: Path) -> None:
    """Write `problems.jsonl`, and `more/` whose problems lie in several files."""
    lines = [json.dumps(_make_row(n, 3 + n, traced=n % 3 < 2), ensure_ascii=False) for n in range(12)]
    lines.insert(2, "{broken")
    lines.insert(5, json.dumps({"question": " ", "solution": "nothing", "completion": None}))
    # The same question again, with another trace; and a trace whose thinking cannot be recognized.
    again = _make_row(1, 4, traced=True)
    lines.append(json.dumps({**again, "completion": again["completion"].replace("Take", "First take")}))
    lines.append(json.dumps({**_make_row(0, 9, traced=True), "completion": "It is 9, I think."}))
    (folder / "problems.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "more").mkdir()
    for part in range(5):
        rows = [_make_row(part, 15 + n, traced=n == 1) for n in range(3)]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / "more" / f"part-{part}.jsonl").write_text(text + '{"question": "Why?"}\n', encoding="utf-8")


def _make_row(one: int, other: int, *, traced: bool) -> dict[str, Any]:
    explained = explain(one, other)
    student = load_format("stratos").student
    thought = student.think_padding.join(("", explained.think, ""))
    completion = (
        f"{student.think_open}{thought}{student.think_close}{student.separator}"
        f"{student.solution_open}{explained.solution}{student.solution_close}"
    )
    return {
        "question": explained.question,
        "solution": explained.solution,
        "completion": completion if traced else None,
        "model": "somebody" if traced else None,
        "topic": "Größen und Zahlen",
    }


def save_models(folder: Path) -> None:
    """Save `teacher` and `student`, trained for a moment: so explanations close, and rewards differ."""
    formats = [load_format(name) for name in FORMATS]
    pieces = [*WORDS, *(f"{n}" for n in range(30))]
    for format in formats:
        teacher, student = format.teacher, format.student
        pieces += [teacher.system, student.system, teacher.open, teacher.close, "<solution>", "</solution>"]
        pieces += [student.think_open, student.think_close, student.solution_open, student.solution_close]
    tokenizer = build_tiny_tokenizer(pieces, context=SHAPE.context)
    for seed, name in enumerate(("teacher", "student")):
        model = build_tiny_model(SHAPE, tokenizer, seed=seed)
        rows = list(_draw_explained(random.Random(seed)))
        build = build_teacher_examples if name == "teacher" else build_student_examples
        examples = [example for format in formats for example in build(format, tokenizer, rows)]
        with Reporter(quiet=True).track("training", TRAINING_STEPS) as task:
            train_tiny(
                model,
                tokenizer,
                examples,
                batch_size=16,
                learning_rate=1e-2,
                steps=TRAINING_STEPS,
                seed=seed,
                task=task,
            )
        save_model(model, tokenizer, folder / name)


def _draw_explained(rng: random.Random) -> Iterator[Explained]:
    for _ in range(200):
        yield explain(rng.randint(0, 14), rng.randint(0, 14))
