"""The result of a training run: a model directory that appears whole, and what it was made from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlt_data.models.fingerprint import hash_model_directory
from rlt_data.models.loading import hide_progress_bars

NOTE = "rlt_data_training.md"
# Pickled by transformers beside every model; nothing of ours reads it.
_PICKLED = "training_args.bin"


def save_result(
    trainer: Any, tokenizer: Any, directory: Path, *, about: Mapping[str, Any], merge: bool = False
) -> None:
    """Save the trained model and its tokenizer to `directory`, whole or not at all; in all processes.

    With `merge` a trained adapter is merged into the model first, for which its weights must be whole.
    """
    staging = directory.with_name(f".{directory.name}.partial")
    if trainer.is_world_process_zero():
        shutil.rmtree(staging, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    with hide_progress_bars():
        if not merge:
            trainer.save_model(str(staging))
        elif trainer.is_world_process_zero():
            trainer.accelerator.unwrap_model(trainer.model).merge_and_unload().save_pretrained(staging)
    trainer.accelerator.wait_for_everyone()
    if not trainer.is_world_process_zero():
        return
    tokenizer.save_pretrained(staging)
    (staging / _PICKLED).unlink(missing_ok=True)
    text = "Made by rlt-data.\n\n" + "".join(
        f"- {name}: {json.dumps(value)}\n" for name, value in about.items()
    )
    (staging / NOTE).write_text(text, encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    staging.rename(directory)


def describe_result(directory: Path) -> dict[str, str]:
    """Where a trained model is, and the content hash by which later stages know it."""
    return {"model": str(directory), "revision": hash_model_directory(directory)}


def publish_model(model: Path, place: Path) -> None:
    """Let `place` mean the directory `model`: a link where the system has links, else a copy."""
    place.parent.mkdir(parents=True, exist_ok=True)
    staging = place.with_name(f".{place.name}.partial")
    if staging.is_symlink() or staging.is_file():
        staging.unlink()
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.symlink_to(os.path.relpath(model.resolve(), place.parent.resolve()), target_is_directory=True)
    except OSError:
        shutil.copytree(model, staging)
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    staging.replace(place)
