"""`rlt-data train-teacher`: a recipe with SFT and GRPO."""

from __future__ import annotations

from ..training import make_training_command

command = make_training_command(
    "teacher", "Train a teacher: SFT on explanations from the lake, then GRPO with a student's reward."
)
