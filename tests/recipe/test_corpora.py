"""The recipes of corpora: they plan from an empty lake, differ in data alone, and make what they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from command_line import QuickProgram
from engines.openai.fault_server import FaultServer, Plan

from rlt_data.lake import Lake
from rlt_data.recipe.built_in import list_built_in_recipes
from rlt_data.recipe.load import load_recipe
from rlt_data.recipe.run import plan_recipe, run_recipe
from rlt_data.stages.rewrite.prompt import load_prompt

CORPORA = sorted(name for name in list_built_in_recipes() if name.startswith("corpus-"))
QUESTIONS = 6


def write_sources(folder: Path) -> None:
    """Write a small file in the layout of Bespoke-Stratos-17k, and the traces of a conventional teacher."""
    rows, traces = [], []
    for number in range(QUESTIONS):
        solution = f"It is \\boxed{{{number + 2}}}."
        value = (
            f"<|begin_of_thought|>\n\nI add {number} and 2 {'slowly ' * number}.<|end_of_thought|>\n\n"
            f"<|begin_of_solution|>{solution}<|end_of_solution|>"
        )
        question = f"What is {number} + 2?"
        turns = [{"from": "user", "value": question}, {"from": "assistant", "value": value}]
        rows.append({"system": "Think.", "conversations": turns})
        text = f"<|begin_of_thought|>\n\n2 {number}??<|end_of_thought|>\n\n{number}"
        traces.append({"question": question, "solution": solution, "completion": text})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "bespoke.jsonl").write_text(text, encoding="utf-8")
    pl.DataFrame(traces).write_parquet(folder / "conventional-traces.parquet")


def override_source(name: str) -> str:
    """Return the override that replaces the dataset of the hub by the small file."""
    return f"ingest{'.0' if 'conventional' in name else ''}.source=bespoke.jsonl"


def clean(prompt: str) -> str:
    """Answer as the prompt `clean-up` asks, in capitals."""
    text = prompt.partition("Reasoning:\n")[2].partition("\n\nWrite the edited")[0]
    return f"<think>How?</think>\n\n<edited>\n{text.upper()}\n</edited>"


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(lambda prompt: Plan(), answer=clean) as running:
        yield running


@pytest.mark.parametrize("name", CORPORA)
def test_a_dry_run_from_an_empty_lake_waits_for_its_first_stage(name: str, quick: QuickProgram) -> None:
    write_sources(quick.folder)
    shown = quick.succeed("run", name, "--set", override_source(name), "--dry-run")
    assert "ingest" in shown
    assert "to do" in shown
    assert not (quick.folder / "lake").exists()


def test_there_is_one_recipe_for_each_corpus() -> None:
    assert CORPORA == [
        "corpus-conventional-cleaned",
        "corpus-conventional-raw",
        "corpus-r1",
        "corpus-r1-cleaned",
        "corpus-r1-correct",
        "corpus-rlt",
        "corpus-s1-style",
    ]


def test_corpora_share_lake_questions_student_and_treatment_of_lengths() -> None:
    shared = set()
    for name in CORPORA:
        recipe = load_recipe([name]).recipe
        first, (substitute,), (export,) = map(recipe.list_configs, ("ingest", "substitute", "export"))
        shared.add(
            (recipe.lake, first[0].model_dump_json(), substitute.model_dump_json(), export.form)  # type: ignore[attr-defined]
        )
    assert len(shared) == 1


def test_every_rewriting_uses_a_prompt_that_exists() -> None:
    for name in [*CORPORA, "with-post-processing"]:
        recipe: Any = load_recipe([name]).recipe
        for config in recipe.rewrite:
            assert load_prompt(config.prompt).needs("think")


@pytest.mark.parametrize(
    ("name", "examples"),
    [
        ("corpus-r1", QUESTIONS),
        ("corpus-r1-correct", QUESTIONS),
        ("corpus-s1-style", QUESTIONS),
        ("corpus-conventional-raw", QUESTIONS),
        ("corpus-r1-cleaned", QUESTIONS),
        ("corpus-conventional-cleaned", QUESTIONS),
    ],
)
def test_a_corpus_is_made(
    name: str, examples: int, tmp_path: Path, tiny_model: Path, server: FaultServer
) -> None:
    write_sources(tmp_path)
    overrides = [override_source(name), f"substitute.student={tiny_model}", "export.form=jsonl"]
    if name.endswith("cleaned"):
        alias = "bespoke-cleaned" if "r1" in name else "conventional-cleaned"
        overrides += [
            f"models.{alias}.model=faulty",
            f"rewrite.base_url={server.base_url}",
            f"rewrite.tokenizer={tiny_model}",
            "rewrite.max_tokens=512",
        ]
    with chdir(tmp_path):
        loaded, lake = load_recipe([name], overrides), Lake("lake")
        run_recipe(loaded, lake)
        assert {planned.state for planned in plan_recipe(loaded, lake)} == {"finished"}
        lines = (
            (tmp_path / f"corpora/{name.removeprefix('corpus-')}").read_text(encoding="utf-8").splitlines()
        )
    assert len(lines) == examples
    traces = lake.sql(
        "SELECT origin, teacher, think, parent_trace_id FROM distillation JOIN traces USING (trace_id)"
    ).to_pylist()
    cleaned = name.endswith("cleaned")
    assert {trace["origin"] for trace in traces} == {"rewritten" if cleaned else "imported"}
    assert all(trace["think"] == trace["think"].upper() for trace in traces if cleaned)
    assert {trace["parent_trace_id"] is None for trace in traces} == {not cleaned}
    wanted = "conventional" if "conventional" in name else "bespoke"
    assert {trace["teacher"] for trace in traces} == {f"{wanted}-cleaned" if cleaned else wanted}


def test_with_post_processing_cleans_what_another_recipe_ranks() -> None:
    plain: Any = load_recipe(["gsm8k-traces"]).recipe
    merged: Any = load_recipe(["gsm8k-traces", "with-post-processing"]).recipe
    assert [step.section for step in merged.list_steps()] == [
        "ingest",
        "generate",
        "rewrite",
        "score",
        "rank",
        "substitute",
        "export",
    ]
    assert plain.rewrite == ()
    assert merged.rank[0].where == "origin = 'rewritten'"
    assert merged.rank[0].policy == plain.rank[0].policy
