"""A lake with a whole chain of rows and runs: from a source to the evaluation of a trained student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluated_lake import make_evaluation, make_grade
from opened_run import open_run
from small_lake import make_question, make_score, make_trace

from rlt_data.lake import Lake
from rlt_data.models.identity import ModelIdentity
from rlt_data.stages.runtime.contract import RunField, StageConfig

WEIGHTS = {name: name.encode().hex().ljust(32, "0") for name in ("base", "teacher", "sft", "student")}


class ChainConfig(StageConfig):
    role: RunField[str | None] = None
    policy: RunField[str | None] = None
    distillation: RunField[str | None] = None
    label: RunField[str] = ""


@dataclass(frozen=True)
class Chain:
    """A lake, and the ids of the runs by what they made."""

    lake: Lake
    runs: Mapping[str, str]


def append(
    lake: Lake,
    stage: str,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    inputs: Sequence[str] = (),
    model: tuple[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    **config: Any,
) -> str:
    """Append rows as a finished run of a stage, which used a model (its role and name)."""
    models = [ModelIdentity(model[0], model[1], model[1], WEIGHTS[model[1]])] if model else []
    run = open_run(lake, stage, ChainConfig(**config), inputs=inputs, outputs=tuple(tables), models=models)
    with run:
        for table, rows in tables.items():
            run.append(table, [dict(row) for row in rows])
        run.summary.extra |= extra or {}
    return run.run_id


def make_example(trace: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "example_id": f"example-{trace['trace_id']}",
        "question_id": trace["question_id"],
        "trace_id": trace["trace_id"],
        "rank": 1,
        "reward": -1.0,
        "format": "stratos",
        "text": "text",
        "messages": [],
        "over_context": False,
    }


def make_chain(folder: Path, *, records_set: bool = True, rewritten: bool = False) -> Chain:
    """Three questions, a trained teacher's traces, a student by SFT and then GRPO, and its evaluations.

    Two of three traces are in the distillation set. `records_set=False`: the SFT does not record its set.
    `rewritten`: traces that the model `base` made from the teacher's are scored, ranked and learned from.
    """
    lake = Lake(folder / "lake")
    runs: dict[str, str] = {}
    traces = [make_trace(i, 0, teacher="teacher", teacher_revision=WEIGHTS["teacher"]) for i in range(3)]
    scores = [make_score(trace, -1.0) for trace in traces]
    runs["ingest"] = append(lake, "ingest", {"questions": [make_question(i) for i in range(3)]})
    runs["teacher"] = append(
        lake,
        "grpo",
        {"metrics": []},
        inputs=("questions",),
        model=("teacher", "base"),
        extra={"revision": WEIGHTS["teacher"], "optimiser_steps": 125},
    )
    runs["generate"] = append(
        lake, "generate", {"traces": traces}, inputs=("questions",), model=("teacher", "teacher")
    )
    if rewritten:
        parents = traces
        traces = [
            {
                **make_trace(i, 1, teacher="base", teacher_revision=WEIGHTS["base"]),
                "origin": "rewritten",
                "parent_trace_id": parent["trace_id"],
            }
            for i, parent in enumerate(parents)
        ]
        scores = [make_score(trace, -1.0) for trace in traces]
        runs["rewrite"] = append(lake, "rewrite", {"traces": traces}, model=("rewriter", "base"))
    runs["score"] = append(lake, "score", {"scores": scores}, inputs=("traces",), model=("student", "base"))
    rankings = [
        {
            "ranking_id": f"ranking-{trace['trace_id']}",
            "question_id": trace["question_id"],
            "trace_id": trace["trace_id"],
            "score_id": score["score_id"],
            "student": "student",
            "policy": "best-of-n(1)",
            "rank": 1,
            "group_size": 1,
            "selected": True,
            "reward": -1.0,
        }
        for trace, score in zip(traces, scores, strict=True)
    ]
    runs["rank"] = append(
        lake, "rank", {"rankings": rankings}, inputs=("traces", "scores"), policy="best-of-n(1)"
    )
    for name, examples in (("set", traces[:2]), ("other", traces[2:])):
        runs[name] = append(
            lake,
            "substitute",
            {"distillation": [make_example(trace) for trace in examples]},
            inputs=("rankings", "traces", "questions"),
            extra={"ranking": runs["rank"], "ranked_by": "student"},
            label=name,
        )
        if name == "set":
            source = {"distillation": runs["set"]} if records_set else {}
            runs["sft"] = append(
                lake,
                "sft",
                {"metrics": []},
                inputs=("distillation", "traces", "questions"),
                model=("student", "base"),
                extra={"revision": WEIGHTS["sft"], "optimiser_steps": 12, **source},
                role="student",
            )
    runs["rl"] = append(
        lake,
        "grpo",
        {"metrics": []},
        inputs=("questions",),
        model=("student", "sft"),
        extra={"revision": WEIGHTS["student"], "optimiser_steps": 7},
    )
    evaluations = [
        make_evaluation(
            "student", "countdown", question, 0, model_revision=WEIGHTS["student"], source_row=row
        )
        for row, question in enumerate(["q0", "unseen"])
    ] + [make_evaluation("base", "countdown", "q0", 0, model_revision=WEIGHTS["base"])]
    runs["evaluate"] = append(lake, "evaluate", {"evaluations": evaluations}, model=("model", "student"))
    runs["grade"] = append(
        lake,
        "grade",
        {"grades": [make_grade(row, "correct") for row in evaluations[:2]]},
        inputs=("evaluations",),
    )
    return Chain(lake, runs)
