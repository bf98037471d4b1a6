"""The result of a training: a model directory, saved atomically, and the path under which it is published."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rlt_data.atomic_files import lock_target, name_draft, remove, replace, write_aside
from rlt_data.errors import UsageError
from rlt_data.models.fingerprint import hash_model_directory
from rlt_data.models.loading import hide_progress_bars
from rlt_data.training.common.divergence import check_saved_weights

MARKER = "rlt_data_training.md"
"""Describes a trained model, and marks its directory as one."""
COPY_MARKER = "rlt_data_copy.md"
"""Marks a published copy of a trained model, which the next training may replace."""
# Pickled by transformers beside every model; this program does not read it.
_PICKLED = "training_args.bin"
_OWN_TARGET = re.compile(r"(?:.*/)?(?:sft|grpo)-[0-9a-f]{12}/model")


def save_result(
    trainer: Any, tokenizer: Any, directory: Path, *, about: Mapping[str, Any], merge: bool = False
) -> None:
    """Save the trained model and its tokenizer to `directory`, atomically; call it in all processes.

    With `merge` a trained adapter is merged into the model first; its weights must not be sharded. Raises
    `StageStoppedError` in the main process where a weight is not finite; then nothing is saved.
    """
    draft = name_draft(directory)
    with ExitStack() as stack:
        if trainer.is_world_process_zero():
            stack.enter_context(write_aside(directory))
        trainer.accelerator.wait_for_everyone()
        with hide_progress_bars():
            if not merge:
                trainer.save_model(str(draft))
            elif trainer.is_world_process_zero():
                trainer.accelerator.unwrap_model(trainer.model).merge_and_unload().save_pretrained(draft)
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            check_saved_weights(draft, str(about.get("stage", directory)))
            tokenizer.save_pretrained(draft)
            (draft / _PICKLED).unlink(missing_ok=True)
            text = "Made by rlt-data.\n\n" + "".join(
                f"- {name}: {json.dumps(value)}\n" for name, value in about.items()
            )
            (draft / MARKER).write_text(text, encoding="utf-8")


def describe_result(directory: Path) -> dict[str, str]:
    """Return the path of a trained model and its revision: the content hash that later stages record."""
    return {"model": str(directory), "revision": hash_model_directory(directory)}


def check_publishable(location: Path) -> None:
    """Raise `UsageError` where `location` contains anything that `publish_model` did not write."""
    if not os.path.lexists(location) or _is_replaceable(location):
        return
    raise UsageError(
        "the trained model cannot be published here: the path exists, and rlt-data did not write it",
        where=str(location),
        remedy="set another output, or move the existing files away",
    )


def _is_replaceable(location: Path) -> bool:
    """Whether `location` is a link to a trained model or a copy of one from `publish_model`, or empty."""
    if location.is_symlink():
        target = location.readlink().as_posix()
        return (location / MARKER).is_file() or bool(_OWN_TARGET.fullmatch(target))
    return (location / COPY_MARKER).is_file() or (location.is_dir() and not any(location.iterdir()))


def publish_model(model: Path, location: Path) -> None:
    """Make `location` a link to the directory `model`, or a copy of it where the system has no links.

    Replaces an earlier publication and nothing else: raises `UsageError` as `check_publishable`.
    """
    check_publishable(location)
    location.parent.mkdir(parents=True, exist_ok=True)
    with lock_target(location):
        draft = name_draft(location)
        remove(draft)
        try:
            target = os.path.relpath(model.resolve(), location.parent.resolve())
            draft.symlink_to(target, target_is_directory=True)
        except OSError:
            shutil.copytree(model, draft)
            (draft / COPY_MARKER).write_text(f"Copied by rlt-data from {model}.\n", encoding="utf-8")
        check_publishable(location)
        if location.is_symlink() and not draft.is_symlink():
            location.unlink()
        replace(draft, location)
