"""The prompt of a rewriting: placeholders, files, and how an answer is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlt_data.errors import UsageError
from rlt_data.formats import load_format
from rlt_data.stages.rewrite import prompt as prompt_module
from rlt_data.stages.rewrite.prompt import BUILT_IN, RewritePrompt, load_prompt

R1 = load_format("r1")


def test_placeholders_are_filled_once_and_other_braces_stay() -> None:
    prompt = RewritePrompt(user="{question} | {solution} | {think} | {x} {} {think}")
    texts = {"question": "{think}", "solution": "{", "think": "{question}", "completion": "unused"}
    assert prompt.write_message(texts) == "{think} | { | {question} | {x} {} {question}"


@pytest.mark.parametrize(
    "keys",
    [
        {"user": "no placeholder"},
        {"user": "{question} {solution}"},
        {"user": "{think}", "system": "about {question}"},
        {"user": "{think}", "open": "<a>"},
        {"user": "{think}", "close": "</a>"},
        {"user": "{think}", "model": "x"},
    ],
)
def test_an_unusable_prompt_is_refused(keys: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"think|system|open|model"):
        RewritePrompt.model_validate(keys)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_prompts_are_loaded_by_name_where_no_file_has_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = load_prompt(name)
    assert prompt.needs("think")
    assert not prompt.needs("solution")  # A student must not read what only the teacher knows.
    assert prompt.read_answer(R1, f"{prompt.open}x{prompt.close}").think == "x"
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("My own: {think}", encoding="utf-8")
    assert load_prompt(name).user == "My own: {think}"


def test_every_file_of_the_folder_is_a_built_in_prompt() -> None:
    folder = Path(prompt_module.__file__).with_name("prompts")
    assert sorted(path.stem for path in folder.glob("*.toml")) == sorted(BUILT_IN)


def test_a_text_and_a_document_with_the_same_text_are_the_same_prompt(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Clean {think}", encoding="utf-8")
    (tmp_path / "b.toml").write_text('user = "Clean {think}"', encoding="utf-8")
    first, second = load_prompt(str(tmp_path / "a.txt")), load_prompt(str(tmp_path / "b.toml"))
    assert first.list_identity() == second.list_identity()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"nothing", "does not contain"),
        ("a.txt", b"{think} \xff", "not UTF-8"),
        ("a.txt", b"{think}" + b"x" * (1 << 20), "larger than"),
        ("a.toml", b"user = ", "a.toml"),
        ("a.toml", b'user = "x"', "think"),
        ("a.toml", b'user = "{think}"\nprompt = "x"', "prompt"),
    ],
)
def test_a_file_that_is_no_prompt_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_prompt(str(tmp_path / name))
    assert message in str(caught.value)
    with pytest.raises(UsageError, match="no such file"):
        load_prompt(str(tmp_path / "missing.txt"))


@pytest.mark.parametrize(
    ("answer", "think", "state"),
    [
        ("Step one.\n\nStep two.", "Step one.\n\nStep two.", "closed"),
        ("<think>\nHow shall I clean it?</think>\n\nStep one.", "Step one.", "closed"),
        ("How shall I clean it?</think>\n\nStep one.", "Step one.", "closed"),
        (
            "<|begin_of_thought|>x<|end_of_thought|><|begin_of_solution|>Step.<|end_of_solution|>",
            "Step.",
            "closed",
        ),
        ("<think>I never come to an end", None, "missing_close"),
        ("<think>Only thoughts</think>", "", "empty"),
        ("   \n", "", "empty"),
        ("", "", "empty"),
    ],
)
def test_the_models_own_thinking_is_removed(answer: str, think: str | None, state: str) -> None:
    parsed = RewritePrompt(user="{think}").read_answer(R1, answer)
    assert (parsed.think, parsed.state) == (think, state)


@pytest.mark.parametrize(
    ("answer", "think", "state"),
    [
        ("Sure! <out>Step one.</out> Anything else?", "Step one.", "closed"),
        ("<think>I write <out>a draft</out>.</think><out>Step one.</out>", "Step one.", "closed"),
        ("Step one.", None, "missing_open"),
        ("<out>Step one", "Step one", "missing_close"),
        ("<out> </out>", "", "empty"),
        ("<out>Step <out>one</out>", "Step <out>one", "repeated_tags"),
    ],
)
def test_the_explanation_is_read_between_its_marks(answer: str, think: str | None, state: str) -> None:
    prompt = RewritePrompt(user="{think}", open="<out>", close="</out>")
    parsed = prompt.read_answer(R1, answer)
    assert (parsed.think, parsed.state) == (think, state)
