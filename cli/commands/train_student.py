"""`rlt-data train-student`: a recipe with SFT on distillation examples."""

from __future__ import annotations

from ..training import make_training_command

command = make_training_command("student", "Train a student: SFT on the distillation examples of the lake.")
