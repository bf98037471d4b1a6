"""Normalise the text of a mathematical answer: layout, spellings, units. Nothing is parsed or evaluated."""

from __future__ import annotations

import re
from fractions import Fraction

from rlt_data.tasks.grading.math.limits import check_text

_CHARACTERS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
        "÷": "/", "∕": "/", "⁄": "/", "π": r"\pi ", "∞": r"\infty ", "°": r"^{\circ}", "√": r"\sqrt ",
        "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∪": r"\cup ",
        "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ",
        "ℝ": r"\mathbb{R}", "⁰": "^{0}", "¹": "^{1}", "²": "^{2}", "³": "^{3}", "⁴": "^{4}", "⁵": "^{5}",
        "⁶": "^{6}", "⁷": "^{7}", "⁸": "^{8}", "⁹": "^{9}", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}",
        "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⟨": r"\langle ", "⟩": r"\rangle ",
        "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2007": " ", "\u200a": " ", "\ufeff": "",
        "\u200b": "", "’": "'", "“": '"', "”": '"', "，": ",", "（": "(", "）": ")", "％": "%", "。": ".",
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
    }
)  # fmt: skip
"""Characters that stand for LaTeX. NFKC would turn x² into x2, and so 5² into 52."""

_WRAPPING = re.compile(r"^(?:\\\(|\\\[|\\displaystyle\b|\*\*|[\s$`:=])+|(?:\\\)|\\\]|\*\*|\\\\|[\s$`.,;:])+$")
_CURRENCY = re.compile(r"\\[$€£]|[$€£]|\\text\{\s*\\?\$\s*\}|\\euro\b|\\pounds\b")
_GROUPED = re.compile(r"(?<=[0-9])(?:\{,\}|,\\!|\\,|\\!|\{\s\})\s*(?=[0-9]{3}(?![0-9]))")
_SPACED_GROUPS = re.compile(
    r"(?<![0-9.])(?<![0-9] )[1-9][0-9]{0,2}(?: [0-9]{3})+(?! ?[0-9])"
    r"|(?<=[0-9]\.)[0-9]{3}(?: [0-9]{3})* [0-9]{1,3}(?! ?[0-9])"
)
_COMMA_GROUPS = re.compile(r"(?<![0-9.,(\[{])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
_SIZES = re.compile(
    r"\\(?:left|right|bigl|bigr|Bigl|Bigr|biggl|biggr|big|Big|bigg|Bigg)(?![A-Za-z])\s*\.?(?=.)"
)
_BLANKS = re.compile(
    r"\\(?:quad|qquad|displaystyle|textstyle|limits|hspace\{[^{}]*\})(?![A-Za-z])|(?<!\\)\\[,;:! ]|~|\s+"
)
_FRACTIONS = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_BARE_FRACTION = re.compile(
    r"\\frac\s*([0-9])\s*([0-9])|\\frac\s*([0-9])\s*(?=\{)|\\frac\s*(\{[^{}]*\})\s*([0-9a-zA-Z])"
)
_ROOT_OF_PARENTHESES = re.compile(r"\\?\bsqrt\s*\(([^()]*)\)")
_ROOT_OF_DIGITS = re.compile(r"\\sqrt\s+([0-9]+|[a-zA-Z])|\\sqrt([0-9])")
_FONTS = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|textsf|mathrm|mathbf|mathit|mathsf|mbox|hbox|operatorname|bf|rm)"
    r"\s*\{([^{}]*)\}"
)
_JOINING = re.compile(r"\s*,?\s*\\(?:text|mbox|mathrm)\s*\{\s*,?\s*(?:and|or)\s*\}\s*")
_JOINING_WORD = re.compile(r"\s*,?\s+(?:and|or)\s+")
_ORDINAL = re.compile(
    r"(?<=[0-9])\s*(?:\^\s*)?\{?\s*(?:\\text\s*\{)?\s*(?:st|nd|rd|th)\s*\}{0,2}(?![A-Za-z])"
)
_DEGREES = re.compile(
    r"\^\s*\{?\s*\\circ\s*\}?|\\degrees?(?![A-Za-z])|\s*\\text\s*\{\s*degrees?\s*\}|\\circ\s*$|\s*\bdegrees?\b"
)
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{\s*\\?%\s*\}|\bper ?cent(?:age)?\b)")
_MIXED = re.compile(r"(?<![0-9.}a-zA-Z)^_])([0-9]+) ?\\frac\{([0-9]+)\}\{([0-9]+)\}")
_MIXED_PLAIN = re.compile(r"^(-?)([0-9]+) ([0-9]+)/([0-9]+)$")
_BARE_DECIMAL = re.compile(r"(?<![0-9])\.(?=[0-9])")
_RELATION_NAMES = {"<=": r"\le ", ">=": r"\ge ", "!=": r"\ne ", "==": "=", "**": "^"}
_RELATIONS = re.compile("|".join(re.escape(relation) for relation in _RELATION_NAMES))
# In print, x^10 and x^(10) mean x^{10}.
_POWER = re.compile(r"\^\s*(?:\(([^()]*)\)|(-?[0-9]{2,}))")
_EMPTY_TEXT = re.compile(r"\\text\s*\{\s*\}")

_UNIT_NAMES = {
    "mm": "mm millimeter millimetre", "cm": "cm centimeter centimetre", "m": "meter metre",
    "km": "km kilometer kilometre", "in": "inch inche", "ft": "ft feet foot", "yd": "yd yard", "mi": "mile",
    "s": "sec second", "min": "min minute", "h": "hr hour", "d": "day", "w": "week", "month": "month",
    "y": "yr year", "g": "gram", "kg": "kg kilogram", "lb": "lb pound", "dollar": "dollar usd buck",
    "cent": "cent", "euro": "euro eur", "l": "liter litre", "ml": "ml milliliter millilitre", "mph": "mph",
}  # fmt: skip
_UNITS = {alias: name for name, aliases in _UNIT_NAMES.items() for alias in aliases.split()}
_POWERS = {"square": "2", "squared": "2", "sq": "2", "cubic": "3", "cubed": "3"}
_UNIT = re.compile(
    r"^(?P<value>.*(?:[0-9})]|\\pi))\s*"
    r"(?:\\text\s*\{\s*(?P<text>[A-Za-z][A-Za-z ./-]*)\}|\s(?P<words>[A-Za-z]{2}[A-Za-z ./-]*))"
    r"\s*(?:\^\s*\{?(?P<power>[23])\}?)?\s*$",
    re.DOTALL,
)
_CURRENCIES = {"$": "dollar^1", "€": "euro^1", "£": "lb^1"}
_CURRENCY_SIGN = re.compile(r"\\([$€£])|([€£])|\\text\{\s*(\$)\s*\}|\\(euro|pounds)\b")
_HALF_OF_DAY = re.compile(
    r"(?:(?:(?<=:[0-9]{2})\s*|\s+)(?P<plain>[ap])\.? ?m\.?"
    r"|\s*\\text\{\s*(?P<text>[ap])\.? ?m\.?\s*\})\s*$",
    re.IGNORECASE,
)
_ANGLE = re.compile(
    r"(?P<function>\\(?:sin|cos|tan|cot|sec|csc)\s*(?:\^\s*\{?[0-9]\}?)?)\s*"
    r"(?P<open>[({]?)\s*(?P<angle>[0-9]+(?:\.[0-9]+)?)\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))\s*(?P<close>[)}]?)"
)
_REPEATING = re.compile(
    r"(?P<sign>[-+]?)(?P<whole>[0-9]*)\.(?P<first>[0-9]*)\\(?:overline|bar)\{?(?P<period>[0-9]+)\}?"
)
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_RATIO = re.compile(
    r"(?P<sign>[-+]?)(?:\\frac\{(?P<a>-?[0-9]+)\}\{(?P<b>-?[0-9]+)\}"
    r"|\(?(?P<c>-?[0-9]+)\)?/\(?(?P<d>-?[0-9]+)\)?"
    r"|\((?P<whole>[0-9]+)\+\\frac\{(?P<e>[0-9]+)\}\{(?P<f>[0-9]+)\}\))"
)
_WORDS = re.compile(r"[A-Za-z]+(?:(?:'|-|\.? )[A-Za-z]+)*\.?")
_LONG_WORD = re.compile(r"[A-Za-z]{3,}")
_FUNCTIONS = re.compile(r"\b(?:sin|cos|tan|log|ln|exp|sqrt|pi|sec|csc|cot)\b")
_COMMANDS = re.compile(r"\\[a-zA-Z]+")


def normalize_answer(text: str) -> str:
    """Normalise the layout of an answer: blanks, sizes of brackets, fractions, digit groups, fonts.

    Raises `OverLimitError` where the text exceeds the limits of what is compared.
    """
    check_text(text)
    text = text.translate(_CHARACTERS)
    text = strip_wrapping(text)
    text = _GROUPED.sub("", text)
    text = _CURRENCY.sub("", text)
    text = _JOINING.sub(", ", text)
    text = _EMPTY_TEXT.sub(" ", text)
    text = _ORDINAL.sub("", text)
    text = _SIZES.sub("", text)
    text = _BLANKS.sub(" ", text)
    text = _FRACTIONS.sub(r"\\frac", text)
    text = _BARE_FRACTION.sub(_brace_fraction, text)
    text = _ROOT_OF_PARENTHESES.sub(r"\\sqrt{\1}", text)
    text = _ROOT_OF_DIGITS.sub(lambda match: rf"\sqrt{{{match[1] or match[2]}}}", text)
    text = _SPACED_GROUPS.sub(lambda match: match[0].replace(" ", ""), text)
    text = _COMMA_GROUPS.sub(lambda match: match[0].replace(",", ""), text)
    text = _MIXED.sub(r"(\1+\\frac{\2}{\3})", text)
    text = _RELATIONS.sub(lambda match: _RELATION_NAMES[match[0]], text)
    # Inner brackets first.
    while (braced := _POWER.sub(lambda match: "^{" + (match[1] or match[2]) + "}", text)) != text:
        text = braced
    text = _MIXED_PLAIN.sub(r"\1(\2+\\frac{\3}{\4})", text)
    text = _BARE_DECIMAL.sub("0.", text)
    text = text.replace(r"\varnothing", r"\emptyset").replace(r"\{\}", r"\emptyset")
    text = _unwrap_font(text)
    text = _JOINING_WORD.sub(", ", text)
    return strip_wrapping(text)


def strip_wrapping(text: str) -> str:
    """Remove what surrounds an answer: marks of mathematics, bold type, full stops."""
    while (stripped := _WRAPPING.sub("", text)) != text:
        text = stripped
    return text


def split_degrees(text: str) -> tuple[str, bool]:
    """Remove degree signs; return whether there were any."""
    stripped = _DEGREES.sub("", text)
    return stripped.strip(), stripped != text


def split_percent(text: str) -> tuple[str, bool]:
    """Remove percent signs; return whether there were any."""
    stripped = _PERCENT.sub("", text)
    return stripped.strip(), stripped != text


def read_currency(text: str) -> str | None:
    """Return the unit of the currency sign of an answer that is not normalised; None where there is none.

    A bare dollar may be a mark of mathematics, so it is none.
    """
    found = _CURRENCY_SIGN.search(text)
    if found is None:
        return None
    if found[4]:
        return "euro^1" if found[4] == "euro" else _CURRENCIES["£"]
    return _CURRENCIES[found[1] or found[2] or found[3]]


def split_half_of_day(text: str) -> tuple[str, str | None]:
    """Part a time of day from its a.m. ("a") or p.m. ("p"); None where it has neither."""
    found = _HALF_OF_DAY.search(text)
    if found is None or not text[: found.start()].strip()[-1:].isdigit():
        return text, None
    return text[: found.start()].strip(), (found["plain"] or found["text"]).lower()


def convert_angles(text: str) -> str:
    """Write degrees in functions as radians: \\sin 30^\\circ as \\sin(\\frac{30\\pi}{180})."""
    return _ANGLE.sub(
        lambda match: (
            rf"{match['function']}(\frac{{{match['angle']}\pi}}{{180}})"
            if (match["open"], match["close"]) in (("", ""), ("(", ")"), ("{", "}"))
            else match[0]
        ),
        text,
    )


def read_mark(text: str) -> str | None:
    """Return what a quantity is measured in: a known unit, degrees or percent; None where it does not say."""
    if split_percent(text)[1]:
        return "percent"
    if split_degrees(text)[1]:
        return "degree"
    return split_unit(text)[1] or None


def split_unit(text: str) -> tuple[str, str | None]:
    """Part an answer from its unit, such as cm^2; None where there is none, "" for one that is unknown."""
    found = _UNIT.match(text)
    if found is None or _COMMANDS.search(found["words"] or ""):
        return text, None
    words = (found["text"] or found["words"]).lower().replace(".", "").split()
    power = found["power"] or next((_POWERS[word] for word in words if word in _POWERS), "1")
    names = [word for word in words if word not in _POWERS]
    name = _UNITS.get(names[0]) or _UNITS.get(names[0].removesuffix("s")) if len(names) == 1 else None
    if name is None and found["text"] and len(names) == 1 and names[0] in _UNIT_NAMES:
        name = names[0]
    return found["value"].strip(), f"{name}^{power}" if name else ""


def parse_number(text: str) -> Fraction | None:
    """Return the exact value of an integer, a decimal (also a repeating one), a fraction, a mixed number."""
    plain = remove_blanks(text)
    if _NUMBER.fullmatch(plain):
        return Fraction(plain)
    repeating = _REPEATING.fullmatch(plain)
    if repeating is not None:
        whole, first, period = repeating["whole"] or "0", repeating["first"], repeating["period"]
        value = int(whole + first) + Fraction(int(period), int("9" * len(period)))
        return value / Fraction("1" + "0" * len(first)) * (-1 if repeating["sign"] == "-" else 1)
    found = _RATIO.fullmatch(plain)
    if found is None:
        return None
    sign = -1 if found["sign"] == "-" else 1
    if found["whole"] is not None:
        top, bottom = int(found["whole"]) * int(found["f"]) + int(found["e"]), int(found["f"])
    else:
        top, bottom = int(found["a"] or found["c"]), int(found["b"] or found["d"])
    return Fraction(sign * top, bottom) if bottom else None


def is_decimal(text: str) -> bool:
    """Return whether an answer is an integer or a decimal, written out."""
    return _NUMBER.fullmatch(remove_blanks(text)) is not None


def remove_blanks(text: str) -> str:
    """Return an answer without blanks, except between digits: 1 2 is not 12."""
    return re.sub(r"(?<![0-9]) | (?![0-9])", "", re.sub(r"\s+", " ", text))


def is_words(text: str) -> bool:
    """Return whether an answer is words, such as Evelyn, and not a product of variables such as xyz."""
    if _FUNCTIONS.search(text):
        return False
    text = text.strip()
    # Three letters may be a product, such as xyz.
    return len(text) > 3 and _WORDS.fullmatch(text) is not None and _LONG_WORD.search(text) is not None


def fold_words(text: str) -> str:
    """Return words without case, blanks and brackets, so that (A) equals a."""
    return re.sub(r"[^0-9a-z]", "", text.casefold())


def squeeze(text: str) -> str:
    """Return an answer without blanks, except between digits, and without braces around single characters."""
    return re.sub(r"\{([0-9A-Za-z])\}", r"\1", remove_blanks(text))


def _brace_fraction(match: re.Match[str]) -> str:
    if match[1]:
        return rf"\frac{{{match[1]}}}{{{match[2]}}}"
    if match[3]:
        return rf"\frac{{{match[3]}}}"
    return rf"\frac{match[4]}{{{match[5]}}}"


def _unwrap_font(text: str) -> str:
    """Unwrap \\text{...} around a whole answer, a number in it, or a letter such as a choice."""
    whole = _FONTS.fullmatch(text)
    if whole is not None:
        return whole[1].strip()
    return _FONTS.sub(_unwrap_part, text)


def _unwrap_part(match: re.Match[str]) -> str:
    inner = match[1].strip()
    return inner if re.fullmatch(r"[-+0-9., /]+|[A-Za-z]", inner) else rf"\text{{{inner}}}"
