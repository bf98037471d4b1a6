"""The option that a completion chooses: a letter that it states, never one that it only mentions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rlt_data.tasks.answers import extract_boxed_answer
from rlt_data.tasks.options import LETTERS

DEFAULT_COUNT = 10
"""Number of letters that count where a question's options are only part of its text: A to J."""
_MAX_BOX = 2_000

# All repetitions are bounded: a text of 1 MB is read in time proportional to its length.
_COMMANDS = r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|emph|boxed)\s{0,2}\{"
_WRAPPED = re.compile(_COMMANDS + r"([^{}]*)\}")
_DECORATION = " \t\r\n$*_`'\"“”‘’"
_LETTER_AND_TEXT = re.compile(r"\(?([A-Za-z])\s?[).:,\]-]\s{0,9}(.*)|\(?([A-Za-z])\)?", re.DOTALL)
_STATED = re.compile(
    rf"""
    \b(?:the\s{{1,3}})?(?:(?:final|correct|right|best|my)\s{{1,3}})?(?:answer|option|choice)
    \s{{0,3}}(?:\*\*|__)?\s{{0,3}}
    (?::|=|(?:is|would\s{{1,3}}be|must\s{{1,3}}be|should\s{{1,3}}be|(?:choice|option)\s{{1,3}}is)\b:?)
    (?:\s{{0,3}}(?:option|choice|letter|answer)\b)?
    (?P<open>(?:[\s*_$`"'“‘(\[{{]|\\[(\[]|{_COMMANDS}){{0,8}})
    (?P<letter>[A-Za-z])(?![A-Za-z0-9'’^_])
    (?=(?P<close>[\s*_$`"'”’)\]}}\\.,;:!]{{0,10}})(?P<next>\S?))
    """,
    re.IGNORECASE | re.VERBOSE,
)
_CALLED = re.compile(
    r"""
    (?<![\w-])(?:[Oo]ption|[Cc]hoice|[Aa]nswer)?[\s*(]{0,4}(?P<letter>[A-Z])[)*]{0,3}
    \s{1,3}is\s{1,3}(?:(?:therefore|thus|indeed)\s{1,3})?(?:the\s{1,3})?(?:correct|right)
    (?:\s{1,3}(?:answer|option|choice|one))?\s{0,3}(?=[.!;,*\n]|$)
    """,
    re.VERBOSE,
)
_CONDITION = re.compile(r"\b(?:if|whether|unless|suppose|assume)\s{1,3}(?:that\s{1,3})?$", re.IGNORECASE)
_OTHER_LETTER = re.compile(
    r"\s{0,3}(?:or|and|/|&|,)\s{0,3}[*_$(\[{]{0,4}(?:option\s|choice\s)?\(?[A-Z](?![A-Za-z])"
)
_WORDS = frozenset("AI")
"""Letters that are words: what follows them must show that they are none."""


@dataclass(frozen=True)
class Choice:
    """What a completion chooses: `letter`, None where its answer is no single option; the answer's text; and
    how it was found: boxed, boxed_text, stated or plain."""

    letter: str | None
    text: str
    how: str


def find_choice(text: str, options: Sequence[str]) -> Choice | None:
    """Find the option that a text chooses: its last box, else its last statement, else all of the last line.

    A box holds a letter, or the text of exactly one option. Without a box, a letter counts where the text
    calls it the answer ("Answer: C", "the answer is (C)", "option C is correct") or where it is the whole
    last line. A text that chooses nothing so, or two letters at once, gives None: no letter is guessed.
    """
    box = extract_boxed_answer(text)
    if box is not None:
        return _read_box(box, options)
    return _find_statement(text, options) or _read_last_line(text, options)


def list_letters(options: Sequence[str]) -> str:
    """Return the letters that an answer may have: one for each option; A to J where none are listed."""
    return LETTERS[: len(options) or DEFAULT_COUNT]


def _read_box(box: str, options: Sequence[str]) -> Choice:
    text = box[:_MAX_BOX]
    plain = _strip_markup(text)
    if len(plain) == 1 and plain in list_letters(options):
        return Choice(plain, text, "boxed")
    by_text = _match_text(plain, options)
    if by_text is not None:
        return Choice(by_text, text, "boxed_text")
    statement = _find_statement(plain, options)
    if statement is not None:
        return Choice(statement.letter, text, "boxed")
    return Choice(_read_letter(plain, options), text, "boxed")


def _read_letter(plain: str, options: Sequence[str]) -> str | None:
    """Read "C", "(C)", "c", "C) text", "C. text"; None where the text is that of another option, or more."""
    found = _LETTER_AND_TEXT.fullmatch(plain)
    if found is None:
        return None
    letter = (found[1] or found[3]).upper()
    text = _strip_markup(found[2] or "")
    if not text:
        return letter
    named = _match_text(text, options)
    if named is not None:
        return letter if named == letter else None
    # "C, D" is two letters. Without a list of options, any other text is believed to be that of the option.
    return letter if len(text) > 1 and not options else None


def _match_text(plain: str, options: Sequence[str]) -> str | None:
    """Return the letter of the only option that has this text, up to markup, case and spaces."""
    wanted = _normalize(plain)
    found = [letter for letter, option in zip(LETTERS, options, strict=False) if _normalize(option) == wanted]
    return found[0] if wanted and len(found) == 1 else None


def _find_statement(text: str, options: Sequence[str]) -> Choice | None:
    """Find the last statement of an answer; None where it names two letters."""
    last: tuple[int, str, bool] | None = None
    for found in _STATED.finditer(text):
        letter, opened = found["letter"], any(mark in found["open"] for mark in '([{$*`"')
        closed = found["close"].strip(" \t")
        if letter.islower() and not (opened and closed):
            continue  # "the answer is a matter of taste"
        if letter in _WORDS and not opened and not closed and found["next"]:
            continue  # "the answer is A common mistake"
        after = text[found.end("letter") : found.end("letter") + 40].lstrip("*_$)]}`\"' ")
        last = (found.start(), letter.upper(), bool(_OTHER_LETTER.match(after)))
    for found in _CALLED.finditer(text):
        condition = _CONDITION.search(text[max(0, found.start() - 20) : found.start()])
        if not condition and (last is None or found.start() > last[0]):
            last = (found.start(), found["letter"], False)
    if last is None or last[2]:
        return None
    return Choice(last[1], last[1], "stated")


def _read_last_line(text: str, options: Sequence[str]) -> Choice | None:
    line = text.rstrip()[-200:].rpartition("\n")[2]
    plain = _strip_markup(line)
    if re.fullmatch(r"[A-Z]", plain):
        return Choice(plain, plain, "plain")
    found = re.fullmatch(r"\(?([A-Z])\)\s{1,4}(.{1,150})", plain)
    if found is not None and _match_text(_strip_markup(found[2]), options) == found[1]:
        return Choice(found[1], plain, "plain")
    return None


def _strip_markup(text: str) -> str:
    """Remove LaTeX's text commands, emphasis, dollar signs, brackets around all of it, and a final period."""
    for _ in range(4):
        text = _WRAPPED.sub(r"\1", text)
    text = text.strip(_DECORATION).removesuffix(".").strip(_DECORATION)
    text = re.sub(r"^\\[(\[]\s{0,3}|\s{0,3}\\[)\]]$", "", text).strip(_DECORATION)
    inner = re.fullmatch(r"[(\[{]([^()\[\]{}]*)[)\]}]", text)
    return inner[1].strip(_DECORATION) if inner else text


def _normalize(text: str) -> str:
    return " ".join(_strip_markup(text).casefold().replace("$", "").split())
