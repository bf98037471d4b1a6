"""The final answer of a worked solution: `\\boxed{...}`, `#### ...`, "the answer is ...", or all of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Without braces \boxed applies to one token; words after it are no answer: they echo an instruction.
# A backslash escapes the next character, so \{ is not a brace.
_MARKS = re.compile(
    r"(?P<box>\\(?:boxed|fbox)\s*\{)"
    r"|\\(?:boxed|fbox)\s*(?P<bare>[-+]?[0-9][0-9/]*(?:\.[0-9]+)?|(?<=\s)[A-Za-z](?=\s*\$))|\\.|[{}]",
    re.DOTALL,
)
# What an instruction puts into a box.
_PLACEHOLDER = re.compile(
    r"(?:\\(?:text|textbf|mathrm)\{)?[<\[(*$ ]{0,3}(?:(?:your|the|final)\s+)*"
    r"(?:answer|\\[lc]?dots|\\square|\.\.\.|…|\?)(?:\s+here)?[>\])*$ ]{0,3}\}?",
    re.IGNORECASE,
)
_HASHES = re.compile(r"^[ \t]*####[ \t]*(?P<answer>\S.*?)[ \t]*$", re.MULTILINE)
_THOUSANDS = re.compile(r"[-+]?\$?\d{1,3}(?:,\d{3})+(?:\.\d+)?%?")
_STATED = re.compile(r"\banswer(?:\s+is\b:?|:)(?P<answer>.+)$", re.IGNORECASE)
_TAGS = re.compile(r"<(/?)answer>", re.IGNORECASE)
_WRAPPING = "*$ \t"
_PLAIN_LENGTH = 60


def extract_answer(text: str) -> str | None:
    """Extract the final answer of a solution or completion; None where there is none.

    The first that exists: the last complete `\\boxed{}`, the last `####` line, "the answer is ..." in the
    last line, or the text itself where it is one short line and not a sentence.
    """
    return (
        extract_boxed_answer(text)
        or extract_hash_answer(text)
        or extract_stated_answer(text)
        or extract_plain_answer(text)
    )


@dataclass(frozen=True)
class Box:
    """A complete box: where it begins and ends in the text, and its content."""

    start: int
    end: int
    content: str


def find_boxes(text: str) -> list[Box]:
    """Find the complete boxes that are not empty, by their beginnings; of nested ones, the inner alone."""
    # The mark of a box, or None for any other brace, with the number of boxes before it.
    open_braces: list[tuple[re.Match[str] | None, int]] = []
    boxes: list[Box] = []
    for mark in _MARKS.finditer(text):
        if mark["bare"] is not None:
            boxes.append(Box(mark.start(), mark.end(), mark["bare"]))
        elif mark["box"] is not None or mark[0] == "{":
            open_braces.append((mark if mark["box"] is not None else None, len(boxes)))
        elif mark[0] == "}" and open_braces:
            box, before = open_braces.pop()
            if box is None or len(boxes) > before:
                continue
            content = text[box.end() : mark.start()].strip()
            if content and not _PLACEHOLDER.fullmatch(content):
                boxes.append(Box(box.start(), mark.end(), content))
    return sorted(boxes, key=lambda box: box.start)


def extract_boxed_answer(text: str) -> str | None:
    """Return the content of the last complete `\\boxed{...}` or `\\fbox{...}`; of nested ones, the inner."""
    boxes = find_boxes(text)
    return boxes[-1].content if boxes else None


def extract_hash_answer(text: str) -> str | None:
    """Return the text after the last `####` at the start of a line, as in GSM8K; 70,000 becomes 70000."""
    found = _HASHES.findall(text)
    return drop_thousands_commas(found[-1]) if found else None


def extract_stated_answer(text: str) -> str | None:
    """Return the text after "answer is" or "answer:" in the last line, if it is short and not a sentence."""
    lines = text.strip().splitlines()
    found = _STATED.search(lines[-1]) if lines else None
    if found is None:
        return None
    return extract_plain_answer(found["answer"].strip(_WRAPPING).removesuffix("."))


def extract_plain_answer(text: str) -> str | None:
    """Return the text itself if it is one short line and not a sentence, such as `128` or `x^2 + 1`."""
    line = text.strip()
    if not line or "\n" in line or len(line) > _PLAIN_LENGTH or line.endswith((".", "!", "?", ":")):
        return None
    if len(re.findall(r"[^\W\d_]{2,}", line)) > 3 or r"\boxed" in line or r"\fbox" in line:
        return None
    bare = line.strip(_WRAPPING)
    if bare.count("$") % 2 or bare.count(r"\(") != bare.count(r"\)"):
        return None  # The line was truncated.
    if bare.startswith(r"\(") and bare.endswith(r"\)"):
        bare = bare[2:-2].strip()
    return drop_thousands_commas(bare) or None


def drop_thousands_commas(answer: str) -> str:
    """Convert 1,234,567 to 1234567; keep all other commas, such as those between two numbers."""
    return answer.replace(",", "") if _THOUSANDS.fullmatch(answer) else answer


def render_answer(answer: str, template: str = r"The answer is \boxed{{answer}}.") -> str:
    """Render a solution that only states the final answer; `{answer}` in the template is replaced."""
    return template.replace("{answer}", answer)


def extract_tagged_answer(text: str) -> str | None:
    """Return the text of the last `<answer>...</answer>` that is not blank."""
    start: int | None = None
    last: str | None = None
    for tag in _TAGS.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            last, start = text[start : tag.start()].strip() or last, None
    return last
