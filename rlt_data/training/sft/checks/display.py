"""Examples for people: the labeled part, and the part that is wrong, marked and coloured."""

from __future__ import annotations

from rich.text import Text

from rlt_data.console import VisibleConsole
from rlt_data.errors import InputError
from rlt_data.terminal import make_visible
from rlt_data.training.sft.checks.examples import Flaw
from rlt_data.training.sft.examples import IGNORED, SupervisedExample

_AROUND = 200
_PROMPT, _LABELED, _WRONG = "dim", "green", "bold white on red"


def describe_example(example: SupervisedExample, *, limit: int = 2000) -> str:
    """Describe one example: its text with the labeled part between ⟦ and ⟧, its spans and token counts."""
    return draw_example(example, limit=limit).plain


def draw_example(example: SupervisedExample, *, limit: int = 2000) -> Text:
    """Draw what `describe_example` describes: the prompt dim, the labeled part green."""
    text = example.rendered.text
    begin = example.rendered.spans["prompt"][1]
    labeled = sum(label != IGNORED for label in example.labels)
    prompt, written = make_visible(text[:begin]), make_visible(text[begin:])
    shown = Text.assemble((prompt, _PROMPT), "⟦", (written, _LABELED), "⟧")
    if len(shown) > limit:
        shown = Text.assemble(shown[: limit // 2], " [...] ", shown[-limit // 2 :])
    spans = ", ".join(f"{name} {a}:{b}" for name, (a, b) in sorted(example.rendered.spans.items()))
    counts = f"{len(example.token_ids)} tokens, {labeled} of them labeled"
    return Text.assemble(shown, f"\nspans (characters): {spans}\n{counts}")


def print_example(example: SupervisedExample) -> None:
    """Print the first example on stderr, coloured where that is a terminal."""
    console = VisibleConsole(stderr=True)
    console.print("first example, with the labeled part between ⟦ and ⟧:")
    console.print(draw_example(example), "", sep="\n", soft_wrap=True)


def refuse_example(key: str, example: SupervisedExample, flaw: Flaw) -> InputError:
    """Make the error that refuses an example, with the offending part between ⟦ and ⟧.

    Where stderr is a terminal the example is printed first, with that part coloured.
    """
    shown = draw_flaw(example, flaw)
    console = VisibleConsole(stderr=True)
    if console.is_terminal:
        console.print(f"example {key}:")
        console.print(shown, soft_wrap=True)
    return InputError(
        flaw.what,
        where=f"example {key}: {shown.plain}",
        remedy=f"{flaw.remedy or 'repair the row'}; or leave it out: sft.where = \"example_id <> '{key}'\"",
    )


def draw_flaw(example: SupervisedExample, flaw: Flaw) -> Text:
    """Draw the offending part of an example between ⟦ and ⟧, with some text around it."""
    text = example.rendered.text
    begin, end = flaw.span
    before, part, after = text[max(0, begin - _AROUND) : begin], text[begin:end], text[end : end + _AROUND]
    if len(part) > 2 * _AROUND:
        part = f"{part[:_AROUND]} [...] {part[-_AROUND:]}"
    return Text.assemble(
        make_visible(("... " if begin > _AROUND else "") + before),
        "⟦",
        (make_visible(part), _WRONG),
        "⟧",
        make_visible(after + (" ..." if end + _AROUND < len(text) else "")),
    )
