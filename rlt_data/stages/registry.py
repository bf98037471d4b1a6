"""Every stage of the pipeline, declared once, in the order in which a recipe runs them.

Importing this module imports no stage.
"""

from __future__ import annotations

from rlt_data.stages.runtime.declaration import MadeBy, StageDeclaration

REWARD_FLAGS = {"reward.lambda_kl": "--lambda"}

STAGES: tuple[StageDeclaration, ...] = (
    StageDeclaration(
        name="ingest",
        help="Read problems and traces into the lake.",
        pins=("questions",),
        writes=("questions", "traces"),
        arguments=("source",),
        flags={"options": "--option"},
    ),
    StageDeclaration(
        name="generate",
        help="Generate explanations with a teacher model.",
        reads=("questions",),
        writes=("traces",),
        repeats=False,
        flags={"engine_options": "--engine-option"},
    ),
    StageDeclaration(
        name="rewrite",
        help="Rewrite explanations with a model, such as to clean them up.",
        pins=("questions", "traces", "rankings"),
        writes=("traces",),
        repeats=False,
        flags={"engine_options": "--engine-option"},
    ),
    StageDeclaration(
        name="score",
        help="Score traces with a student model, token by token.",
        reads=("questions", "traces"),
        writes=("scores",),
        repeats=False,
        flags={"students": "--student", "backend_options": "--backend-option", **REWARD_FLAGS},
    ),
    StageDeclaration(
        name="reward",
        help="Derive rewards again from stored token scores.",
        reads=("scores",),
        writes=("rewards",),
        flags=REWARD_FLAGS,
    ),
    StageDeclaration(
        name="rank",
        help="Rank the traces of each question and select the best.",
        reads=("traces", "scores"),
        pins=("questions",),
        writes=("rankings",),
        flags={"students": "--student", "filters": "--filter", **REWARD_FLAGS},
    ),
    StageDeclaration(
        name="substitute",
        help="Build distillation examples with the true solution.",
        pins=("rankings", "traces", "questions"),
        writes=("distillation",),
        made_by=MadeBy("rank", "ranking"),
    ),
    StageDeclaration(
        name="export",
        help="Write the distillation set for a trainer.",
        pins=("distillation", "questions", "traces"),
        arguments=("path",),
        made_by=MadeBy("substitute", "distillation"),
    ),
    StageDeclaration(
        name="evaluate",
        help="Evaluate models on tasks, with graded answers.",
        pins=("questions", "traces"),
        writes=("evaluations", "grades"),
        repeats=False,
        flags={"engine_options": "--engine-option"},
    ),
    StageDeclaration(
        name="grade",
        help="Grade stored completions again, without a model.",
        reads=("evaluations",),
        writes=("grades",),
        repeats=False,
    ),
    StageDeclaration(
        name="compare",
        help="Compare models on the same questions.",
        reads=("evaluations", "grades"),
        writes=("comparisons",),
        arguments=("models",),
        flags={"tasks": "--task"},
    ),
)


def find_stage(name: str) -> StageDeclaration:
    """Find the declaration of the stage `name`. Raises `KeyError` where there is none."""
    return {stage.name: stage for stage in STAGES}[name]
