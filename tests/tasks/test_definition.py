"""Tasks: built in, a user's own, from a file; and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlt_data.errors import UsageError
from rlt_data.formats import load_built_in
from rlt_data.settings import load_settings
from rlt_data.tasks.definition import BUILT_IN, ListedTask, list_tasks, load_task


def load_own(folder: Path, text: str, name: str = "mine") -> ListedTask:
    path = folder / "rlt-data.toml"
    path.write_text(text, encoding="utf-8")
    return load_task(name, load_settings(path))


def test_every_built_in_task_states_where_it_comes_from() -> None:
    tasks = {listed.task.name: listed.task for listed in list_tasks()}
    assert set(tasks) == set(BUILT_IN)
    assert {"aime24", "aime25", "math500", "gpqa_diamond", "gsm8k", "countdown"} <= set(tasks)
    assert all(task.origin["prompt"] and task.about for task in tasks.values())


def test_the_prompts_are_those_of_the_papers_evaluation() -> None:
    boxed = r"Return your final response within \boxed{}. {question}"
    for name in ("aime24", "aime25", "math500"):
        assert load_task(name).task.prompt == boxed
    assert load_task("gpqa_diamond").task.prompt == (
        r"Return your final response within \boxed{} and only include the letter choice (A, B, C, or D) as "
        "your final response. {question}\n{options}"
    )
    assert load_task("gpqa_diamond").task.separator == ", "


def test_any_generator_of_reasoning_gym_is_a_task() -> None:
    task = load_task("reasoning-gym:chain_sum").task
    assert (task.grader, task.source and task.source.dataset) == ("reasoning_gym", "reasoning-gym:chain_sum")


def test_a_users_task_needs_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text("", encoding="utf-8")
    text = '[tasks.mine]\nbase = "math500"\nsource = { dataset = "q.jsonl" }\nsampling = { samples = 4 }\n'
    listed = load_own(tmp_path, text)
    assert listed.defined_in == f"{tmp_path / 'rlt-data.toml'}:1"
    assert listed.task.graders == ("math", "text")
    assert listed.task.sampling.samples == 4
    assert listed.task.source is not None
    # The path is relative to the file; the split of the base belongs to another dataset.
    assert (listed.task.source.dataset, listed.task.source.split) == (str(tmp_path / "q.jsonl"), None)


def test_a_task_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "riddles.toml"
    path.write_text('prompt = "Riddle: {question} {curly}"\ngrader = "text"\n', encoding="utf-8")
    task = load_task(str(path)).task
    assert (task.name, task.grader) == ("riddles", "text")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('prompt = "no placeholder"\ngrader = "text"', "must contain {question} once"),
        ('prompt = "{question} {options}"\ngrader = "math"', "must contain {options} never"),
        ('prompt = "{question}"\ngrader = "choice"', "must contain {options} once"),
        ('base = "gpqa_diamond"\noption = "{letter}"', "option must contain {letter} and {text}"),
        ('base = "math500"\nalso = ["math"]', "a grader is named twice"),
        (
            'base = "gpqa_diamond"\n[tasks.mine.choices]\nright = "a"\noptions = "b"',
            "either `right` and `wrong`",
        ),
    ],
)
def test_a_task_that_contradicts_itself_is_refused(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(UsageError, match=r"rlt-data\.toml") as error:
        load_own(tmp_path, f"[tasks.mine]\n{table}\n")
    assert message in str(error.value)


def test_an_unknown_key_is_located_and_the_nearest_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        load_own(tmp_path, '[tasks.mine]\nbase = "math500"\nprompd = "x {question}"\n')
    assert "rlt-data.toml:3" in str(error.value)
    assert "did you mean 'prompt'?" in str(error.value)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'math500'"):
        load_task("math50")


def test_the_hash_of_a_prompt_changes_with_all_that_is_rendered() -> None:
    math, gsm = load_task("math500").task, load_task("gsm8k").task
    stratos, r1 = (load_built_in(name).student.model_dump() for name in ("stratos", "r1"))
    assert math.hash_prompt(stratos) == load_task("aime24").task.hash_prompt(stratos)
    assert len({math.hash_prompt(stratos), math.hash_prompt(r1), gsm.hash_prompt(stratos)}) == 3


def test_the_tasks_shown_in_the_documentation_are_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    [text] = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert load_own(tmp_path, text, "riddles").task.grader == "text"
    assert load_own(tmp_path, text, "physics").task.grader == "choice"
