"""Recipes: composition, overrides, and what is refused with file, line and reason."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.errors import UsageError
from rlt_data.recipe.built_in import find_recipe, list_built_in_recipes
from rlt_data.recipe.load import load_recipe
from rlt_data.recipe.overrides import apply_override, parse_override
from rlt_data.recipe.training import load_training
from rlt_data.recipe.training_schema import RECIPES
from rlt_data.toml import load_document

BASE = """
lake = "base-lake"

[models.small]
model = "./small"

[generate]
teacher = "small"
samples = 2

[ingest]
source = "a.jsonl"

[score]
students = ["small"]
exact = true

[score.reward]
lambda_kl = 1.0

[rank]

[substitute]
student = "small"

[export]
path = "out"
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path, "base.toml", BASE)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_stages_run_in_the_order_of_the_pipeline(base: Path):
    steps = load_recipe([base]).recipe.list_steps()
    assert [step.section for step in steps] == ["ingest", "generate", "score", "rank", "substitute", "export"]


def test_a_later_file_overrides_earlier_ones_key_by_key(base: Path, tmp_path: Path):
    later = write(tmp_path, "later.toml", "[generate]\nsamples = 8\n[score.reward]\nalpha = 0.5\n")
    recipe = load_recipe([base, later]).recipe
    assert recipe.generate[0].samples == 8
    assert recipe.generate[0].teacher == ("small",)
    assert recipe.score[0].reward.alpha == 0.5
    assert recipe.score[0].reward.lambda_kl == 1.0


def test_overrides_take_precedence_over_files_and_are_typed(base: Path):
    loaded = load_recipe(
        [base],
        ["generate.samples=3", "generate.teacher=qwen7b", 'score.students=["small", "qwen7b"]', "lake=other"],
    )
    assert loaded.recipe.generate[0].samples == 3
    assert loaded.recipe.generate[0].teacher == ("qwen7b",)
    assert loaded.recipe.score[0].students == ("small", "qwen7b")
    assert loaded.lake == "other"


def test_a_stage_may_occur_several_times_and_be_overridden_by_index(tmp_path: Path):
    path = write(tmp_path, "two.toml", '[[ingest]]\nsource = "a.jsonl"\n[[ingest]]\nsource = "b.jsonl"\n')
    recipe = load_recipe([path], ["ingest.1.source=c.jsonl"]).recipe
    assert [config.source for config in recipe.ingest] == ["a.jsonl", "c.jsonl"]
    with pytest.raises(UsageError, match="has 2 tables"):
        load_recipe([path], ["ingest.2.source=c.jsonl"])


def test_models_of_the_recipe_override_those_of_the_user(base: Path, tmp_path: Path):
    own = 'lake = "lake"\n[models.small]\nmodel = "Owner/other"\n[models.mine]\nmodel = "./mine"\n'
    write(tmp_path, "rlt-data.toml", own)
    with chdir(tmp_path):
        settings = load_recipe([base]).settings
    assert settings.models["small"].model == "./small"
    assert settings.models["mine"].model == str(tmp_path / "mine")
    assert settings.lake == str(tmp_path / "lake")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('[generate]\nteacher = "x"\nsampels = 3\n', 3, "did you mean 'samples'?"),
        ('[ingst]\nsource = "x"\n', 1, "did you mean 'ingest'?"),
        (
            '[[ingest]]\nsource = "x"\n[[ingest]]\nsource = "y"\nlayuot = "gsm8k"\n',
            5,
            "did you mean 'layout'?",
        ),
        ('[score]\nstudents = ["x"]\n[score.reward]\nalhpa = 1\n', 4, "did you mean 'alpha'?"),
        ('[generate]\nteacher = "x"\nsamples = "many"\n', 3, "generate"),
        ('[generate]\nteacher = "x"\nsamples = \n', 3, "TOML"),
        ('[models.a]\nmodle = "x"\n[ingest]\nsource = "x"\n', 2, "did you mean 'model'?"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_the_nearest_key(
    text: str, line: int, message: str, tmp_path: Path
):
    path = write(tmp_path, "wrong.toml", text)
    with pytest.raises(UsageError) as caught:
        load_recipe([path])
    assert f"wrong.toml:{line}" in str(caught.value)
    assert message in str(caught.value)


def test_a_wrong_override_is_named(base: Path):
    with pytest.raises(UsageError) as caught:
        load_recipe([base], ["generate.sampels=3"])
    assert "--set generate.sampels=3" in str(caught.value)
    assert "did you mean 'samples'?" in str(caught.value)


@pytest.mark.parametrize("text", ["generate.samples", "=3", "a..b=3"])
def test_an_override_without_key_or_value_is_refused(text: str, base: Path):
    with pytest.raises(UsageError, match="sets nothing"):
        load_recipe([base], [text])


@pytest.mark.parametrize(
    ("change", "reason", "location"),
    [
        ({"score.exact": "false", "rank.reward.estimator": "full"}, "exact divergence", "--set rank.reward"),
        ({"score.exact": "false", "reward.reward.estimator": "full"}, "exact divergence", "--set reward"),
        (
            {"score.exact": "false", "score.teacher": "none", "rank.reward.estimator": "k1"},
            "stores none",
            "rank",
        ),
        ({"generate.temperature": "0"}, "the same text", "base.toml:9"),
    ],
)
def test_contradictions_are_refused_with_the_reason(
    change: dict[str, str], reason: str, location: str, base: Path
):
    with pytest.raises(UsageError) as caught:
        load_recipe([base], [f"{key}={value}" for key, value in change.items()])
    assert reason in caught.value.what
    assert location in str(caught.value.where)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        (("generate", "rank", "substitute", "export"), "rank would ignore the traces of [generate]"),
        (
            ("generate", "score", "substitute", "export"),
            "substitute would use an older set: there is no [rank] after [score]",
        ),
        (("generate", "score", "rank", "export"), "there is no [substitute] after [rank]"),
    ],
)
def test_a_pipeline_with_a_gap_is_refused(kept: tuple[str, ...], reason: str, tmp_path: Path):
    tables = {
        "generate": '[generate]\nteacher = "x"\n',
        "score": '[score]\nstudents = ["x"]\n',
        "rank": "[rank]\n",
        "substitute": '[substitute]\nstudent = "x"\n',
        "export": '[export]\npath = "out"\n',
    }
    path = write(tmp_path, "gap.toml", "".join(tables[name] for name in kept))
    with pytest.raises(UsageError) as caught:
        load_recipe([path])
    assert reason in caught.value.what


def test_parts_of_a_pipeline_may_be_run_alone(tmp_path: Path):
    path = write(tmp_path, "part.toml", '[rank]\n[substitute]\nstudent = "x"\n[export]\npath = "out"\n')
    assert len(load_recipe([path]).recipe.list_steps()) == 3


def test_the_same_stage_twice_is_refused(tmp_path: Path):
    path = write(tmp_path, "twice.toml", '[[ingest]]\nsource = "x"\n[[ingest]]\nsource = "x"\n')
    with pytest.raises(UsageError) as caught:
        load_recipe([path])
    assert "appears twice" in caught.value.what
    assert "twice.toml:3" in str(caught.value.where)


COMPARED = """
[[rank]]
[[rank]]
policy = "random(1)"
[[substitute]]
student = "x"
[[substitute]]
student = "x"
[[export]]
path = "best"
[[export]]
path = "baseline"
"""


def test_as_many_rankings_as_substitutions_are_paired_one_by_one(tmp_path: Path):
    recipe = load_recipe([write(tmp_path, "compared.toml", COMPARED)]).recipe
    makers = {(step.section, step.index): recipe.find_maker(step) for step in recipe.list_steps()}
    assert makers == {
        (section, index): None if section == "rank" else index
        for section in ("rank", "substitute", "export")
        for index in (0, 1)
    }


def test_one_stage_uses_the_last_set_and_a_named_run_takes_precedence(tmp_path: Path):
    text = '[[rank]]\n[[rank]]\npolicy = "random(1)"\n[substitute]\nstudent = "x"\n'
    recipe = load_recipe([write(tmp_path, "last.toml", text)]).recipe
    assert recipe.find_maker(recipe.list_steps()[-1]) == 1
    recipe = load_recipe([write(tmp_path, "named.toml", text + 'ranking = "4f1c"\n')]).recipe
    assert recipe.find_maker(recipe.list_steps()[-1]) is None


def test_stages_that_cannot_be_paired_are_refused(tmp_path: Path):
    path = write(tmp_path, "three.toml", COMPARED + '[[export]]\npath = "third"\n')
    with pytest.raises(UsageError) as caught:
        load_recipe([path])
    assert "2 [[substitute]] and 3 [[export]] cannot be paired" in caught.value.what
    assert "three.toml:9" in str(caught.value.where)


def test_an_empty_recipe_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="no stage"):
        load_recipe([write(tmp_path, "empty.toml", 'lake = "x"\n')])


def test_a_recipe_of_training_names_its_command():
    with pytest.raises(UsageError, match="train-teacher"):
        load_recipe(["teacher-cpu"])


def test_an_absent_recipe_is_named():
    with pytest.raises(UsageError, match="no such file"):
        load_recipe(["absent.toml"])


def test_a_misspelled_built_in_recipe_gets_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'quickstart'"):
        load_recipe(["quickstrat"])


@pytest.mark.parametrize("name", sorted(list_built_in_recipes()))
def test_every_built_in_recipe_loads_by_name_and_by_path(name: str):
    load = find_loader(name)
    assert load([name]).recipe == load([find_recipe(name)]).recipe


def find_loader(name: str) -> Callable[..., Any]:
    """Find how a built-in recipe is loaded, by the role of the model that it trains."""
    keys = load_document(find_recipe(name)).data
    role = next((role for role in RECIPES if role in keys and "output" in keys), None)
    return load_recipe if role is None else partial(load_training, role=role)


KEYS = st.text("abc", min_size=1, max_size=2)
VALUES = st.recursive(st.integers(), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)
TABLES = st.dictionaries(KEYS, VALUES, max_size=4)


@given(TABLES, st.lists(KEYS, min_size=1, max_size=4), st.integers())
def test_an_override_sets_its_key_and_nothing_beside_it(data: dict, path: list[str], value: int):
    change = parse_override(f"{'.'.join(path)}={value}")
    merged = apply_override(data, change.data, name=change.name)
    key_path, before, after = path, data, merged
    for part in key_path[:-1]:
        assert {k: v for k, v in after.items() if k != part} == {k: v for k, v in before.items() if k != part}
        below = before.get(part, {})
        before, after = below if isinstance(below, dict) else {}, after[part]
    assert after[path[-1]] == value
    assert {k: v for k, v in after.items() if k != path[-1]} == {
        k: v for k, v in before.items() if k != path[-1]
    }


def test_the_overlay_filters_what_another_recipe_ranks():
    plain, filtered = load_recipe(["gsm8k-traces"]), load_recipe(["gsm8k-traces", "with-post-processing"])
    assert plain.recipe.rank[0].filters == ()
    assert "correct" in filtered.recipe.rank[0].filters
    assert filtered.recipe.rank[0].policy == plain.recipe.rank[0].policy


def test_every_override_counts_and_the_last_of_one_key(base: Path):
    overrides = ["generate.samples=3", "export.title=a\nb", "score.exact=false", "generate.samples=5"]
    recipe = load_recipe([base], overrides).recipe
    (generate,), (score,), (export,) = map(recipe.list_configs, ("generate", "score", "export"))
    assert (generate.samples, score.exact, export.title) == (5, False, "a\nb")
    with pytest.raises(UsageError, match="integer"):
        load_recipe([base], ["generate.samples=3\nscore.exact=false"])


def test_a_section_that_is_turned_off_is_not_turned_on_by_one_of_its_keys():
    off = apply_override({}, parse_override("sft=false").data, name="--set sft=false")
    change = parse_override("sft.trainer.max_steps=4")
    with pytest.raises(UsageError, match="sft is turned off"):
        apply_override(off, change.data, name=change.name)
