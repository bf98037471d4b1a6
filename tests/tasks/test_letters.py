"""The option that a completion chooses: letters that are stated, and none where none is."""

import time

import pytest

from rlt_data.tasks.letters import find_choice

PLANETS = ("Mercury", "Venus", "Earth", "Mars")
CHOSEN = {
    r"\boxed{C}": ("C", "boxed"),
    r"so $\boxed{\text{C}}$.": ("C", "boxed"),
    r"\boxed{\textbf{(C)}}": ("C", "boxed"),
    r"\boxed{(c)}": ("C", "boxed"),
    r"\boxed{c}": ("C", "boxed"),
    r"\boxed{C.}": ("C", "boxed"),
    r"\boxed{C) Earth}": ("C", "boxed"),
    r"\boxed{\text{(C) Earth}}": ("C", "boxed"),
    r"\boxed{\text{Answer: C}}": ("C", "boxed"),
    r"\boxed{\mathrm{earth}}": ("C", "boxed_text"),
    r"\boxed{Earth}": ("C", "boxed_text"),
    r"\boxed{A} is what I wrote first, but the answer is \boxed{C}": ("C", "boxed"),
    "Answer: C": ("C", "stated"),
    "ANSWER: C": ("C", "stated"),
    "Answer: $C$": ("C", "stated"),
    "**Answer:** C": ("C", "stated"),
    "**Answer: C**": ("C", "stated"),
    "**Final Answer**: (C) Earth": ("C", "stated"),
    "The answer is C": ("C", "stated"),
    "The answer is (C).": ("C", "stated"),
    "The answer is (c).": ("C", "stated"),
    "The answer is **C**, since it is the third.": ("C", "stated"),
    "the correct answer is C because it is the third planet": ("C", "stated"),
    "The correct option is C.": ("C", "stated"),
    "Therefore, the correct choice is option C.": ("C", "stated"),
    r"The answer is \(\text{C}\).": ("C", "stated"),
    "The answer is A": ("A", "stated"),
    "The answer is A.": ("A", "stated"),
    "Answer: A) Mercury": ("A", "stated"),
    "The answer is B. No, wait: the answer is C.": ("C", "stated"),
    "Option C is correct.": ("C", "stated"),
    "Hence (C) is the right answer.": ("C", "stated"),
    "Reasoning.\n\nC": ("C", "plain"),
    "Reasoning.\n\n(C)": ("C", "plain"),
    "Reasoning.\n\n**C**\n": ("C", "plain"),
    "(C) Earth": ("C", "plain"),
}
NOT_CHOSEN = [
    "",
    "C is a nice letter, and A and B are too.",
    "A large planet is what we need.",
    "Option A is close to the sun. Option B is hot. Option C has life. Option D is red.",
    "I think it has to be one of A, B, C or D.",
    "The answer is a matter of taste.",
    "The answer is A common mistake.",
    "The answer is I do not know.",
    "The answer is not C.",
    "The answer cannot be C",
    "The answer is C or D.",
    "The answer is (C) or (D).",
    "Answer: C and D",
    "Answer: B, C",
    "Answer: Carbon",
    "Answer: unknown",
    "Answer:",
    "Answer: $LETTER",
    "If option C is correct, then life exists.",
    "We must decide whether C is correct.",
    "Answer: C'",
    "Answer: C_6H_6",
    "Answer: C^2",
    "The third one, Earth.",
    "Earth",
    "The final answer is 42.",
    "Answer: С",  # a Cyrillic letter
    "Answer: Ｃ",  # a full-width letter
]
NOT_AN_OPTION = [
    r"\boxed{42}",
    r"\boxed{C, D}",
    r"\boxed{C and D}",
    r"\boxed{\text{A or B}}",
    r"\boxed{ABC}",
    r"\boxed{C) Mars}",
    r"\boxed{\text{the third planet}}",
    r"\boxed{С}",  # a Cyrillic letter
]


@pytest.mark.parametrize("text", CHOSEN)
def test_a_chosen_letter_is_found(text):
    found = find_choice(text, PLANETS)
    assert found is not None
    assert (found.letter, found.how) == CHOSEN[text]


@pytest.mark.parametrize("text", NOT_CHOSEN)
def test_no_letter_is_given_to_an_answer_that_chose_none(text):
    assert find_choice(text, PLANETS) is None


@pytest.mark.parametrize("text", NOT_AN_OPTION)
def test_a_box_that_holds_no_single_option_has_no_letter(text):
    found = find_choice(text, PLANETS)
    assert found is not None
    assert found.letter is None


def test_a_letter_beyond_the_options_is_kept_as_it_is():
    assert find_choice(r"\boxed{E}", PLANETS).letter == "E"
    assert find_choice("Answer: Q", PLANETS).letter == "Q"


def test_the_text_of_an_option_precedes_a_lower_case_letter():
    # The options are symbols: "c" is the text of the second one.
    assert find_choice(r"\boxed{c}", ("h", "c", "G", "k")).letter == "B"
    assert find_choice(r"\boxed{C}", ("h", "c", "G", "k")).letter == "C"


def test_a_text_that_two_options_share_chooses_none():
    assert find_choice(r"\boxed{1}", ("1", "$1$", "2", "3")).letter is None


def test_options_in_latex_are_matched_up_to_markup():
    options = ("$x^2$", r"\text{none of these}", "$10^{-3}$ eV", "1.")
    assert find_choice(r"\boxed{$10^{-3}$ eV}", options).letter == "C"
    assert find_choice(r"\boxed{None of these}", options).letter == "B"
    assert find_choice(r"\boxed{x^2}", options).letter == "A"


def test_ten_options_have_ten_letters():
    options = [f"option {i}" for i in range(10)]
    assert find_choice("Answer: J", options).letter == "J"
    assert find_choice(r"\boxed{option 8}", options).letter == "I"


HOSTILE = {
    "spaces": "answer" + " " * 10**6 + "C",
    "the cue a hundred thousand times": "the answer is " * 100_000,
    "open boxes": r"\boxed{" * 150_000,
    "nested boxes": r"\boxed{" * 100_000 + "C" + "}" * 100_000,
    "a box of 1 MB": r"\boxed{" + "x" * 10**6 + "}",
    "stars": "answer: " + "*" * 10**6,
    "letters": "C " * 500_000,
    "escapes": "\x1b]0;C\x07" * 100_000,
    "braces": r"\boxed{\text{" * 50_000 + "C" + "}}" * 50_000,
    "one line of text commands": r"\text{" * 200_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_takes_seconds_at_most(name):
    began = time.process_time()
    found = find_choice(HOSTILE[name], PLANETS)
    assert time.process_time() - began < 10
    assert found is None or found.letter in (None, "C")
