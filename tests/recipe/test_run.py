"""Running recipes: several sets made in one run, and which stage reads which."""

from __future__ import annotations

import json
from pathlib import Path

from small_lake import make_lake

from rlt_data.recipe.load import load_recipe
from rlt_data.recipe.run import plan_recipe, run_recipe

RECIPE = """
[formats.short]
base = "stratos"
[formats.short.teacher]
system = "T"
[formats.short.student]
system = "Think."
[models.student]
model = "{model}"

[[rank]]
[[rank]]
policy = "random(1, seed=3)"
[[substitute]]
format = "short"
[[substitute]]
format = "short"
[[export]]
path = "{folder}/best.jsonl"
form = "jsonl"
[[export]]
path = "{folder}/baseline.jsonl"
form = "jsonl"
"""


def test_a_policy_and_its_baseline_are_exported_side_by_side(tmp_path: Path, tiny_model: Path):
    lake, _ = make_lake(tmp_path, questions=6, samples=4, exact=0.1)
    path = tmp_path / "compared.toml"
    path.write_text(RECIPE.format(model=tiny_model, folder=tmp_path), encoding="utf-8")
    loaded = load_recipe([path])
    assert [planned.state for planned in plan_recipe(loaded, lake)] == ["new"] + ["waits"] * 5
    summaries = run_recipe(loaded, lake)
    best, baseline = (
        [json.loads(line)["trace_id"] for line in (tmp_path / name).read_text(encoding="utf-8").splitlines()]
        for name in ("best.jsonl", "baseline.jsonl")
    )
    assert best == [f"q{number}t0" for number in range(6)]
    assert len(baseline) == 6
    assert baseline != best
    ranked, substituted = summaries[:2], summaries[2:4]
    assert [s.extra["ranking"] for s in substituted] == [s.run_id for s in ranked]
    assert [planned.state for planned in plan_recipe(loaded, lake)] == ["finished"] * 6
    assert [summary.status for summary in run_recipe(loaded, lake)] == ["already finished"] * 6
