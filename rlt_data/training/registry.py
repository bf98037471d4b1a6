"""Every training and every role of a model, declared once. Importing this module imports no training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlt_data.stages.runtime.declaration import StageDeclaration

if TYPE_CHECKING:
    from rlt_data.formats import Role

# A resumed training resumes from its last checkpoint. It counts its rows at the end, repeated steps once.
SFT_TEACHER = StageDeclaration(
    name="sft",
    help="Fine-tune a teacher on the explanations of traces.",
    reads=("questions", "traces"),
    writes=("metrics",),
    repeats=False,
)
SFT_STUDENT = StageDeclaration(
    name="sft",
    help="Fine-tune a student on distillation examples.",
    pins=("distillation", "rankings", "traces", "questions"),
    writes=("metrics",),
    repeats=False,
)
GRPO_TEACHER = StageDeclaration(
    name="grpo",
    help="Train a teacher by GRPO with a student's reward.",
    reads=("questions",),
    writes=("rollouts", "metrics"),
    repeats=False,
)
GRPO_STUDENT = StageDeclaration(
    name="grpo",
    help="Train a student by GRPO with 1 for a correct answer.",
    reads=("questions",),
    writes=("rollouts", "metrics"),
    repeats=False,
)


@dataclass(frozen=True)
class TrainingRole:
    """A role of models that recipes train, with its trainings in the order in which they run.

    Its command is train-`name`. `help` describes it in the list of commands, `details` in its own help. The
    class of its recipes is in `rlt_data/recipe/training_schema.py`.
    """

    name: Role
    help: str
    details: str
    trainings: Sequence[StageDeclaration]

    @property
    def command(self) -> str:
        """The name of its command."""
        return f"train-{self.name}"


ROLES = (
    TrainingRole(
        "teacher",
        "Train a teacher: SFT, then GRPO with a student's reward.",
        "Train a teacher: SFT on explanations from the lake, then GRPO with a student's reward.",
        (SFT_TEACHER, GRPO_TEACHER),
    ),
    TrainingRole(
        "student",
        "Train a student: SFT on examples, then GRPO on correct answers.",
        "Train a student: SFT on distillation examples of the lake, then GRPO with 1 for a correct answer.",
        (SFT_STUDENT, GRPO_STUDENT),
    ),
)
