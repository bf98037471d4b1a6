"""Complete checkpoints: a checkpoint is valid only once a manifest, written last, lists its files.

A process can be killed while a trainer writes a checkpoint; the directory then exists and looks like any
other. So a run resumes only from a checkpoint with a manifest, and an older checkpoint is removed only after
the newer one has its manifest.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlt_data.errors import UsageError, require_module
from rlt_data.training.common.callbacks import Callback
from rlt_data.training.common.weights import gather_weights, scatter_weights

MANIFEST = "rlt_data_checkpoint.json"
REFERENCE = "reference"
_NAME = re.compile(r"checkpoint-(\d+)")


def find_complete_checkpoint(directory: Path) -> Path | None:
    """Find the newest complete checkpoint under `directory`; None where there is none."""
    found = [
        (int(name[1]), path)
        for path in (directory.iterdir() if directory.is_dir() else ())
        if (name := _NAME.fullmatch(path.name)) and is_complete(path)
    ]
    return max(found)[1] if found else None


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint has a manifest and every file that it lists, at the size that it lists."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in manifest["files"].items())
    except (OSError, ValueError, KeyError):
        return False


def write_manifest(checkpoint: Path, about: dict[str, Any]) -> None:
    """Write the manifest of a checkpoint whose files are all written; they are synced to disk before it."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST)
    for path in files:
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
    sizes = {str(path.relative_to(checkpoint)): path.stat().st_size for path in files}
    draft = checkpoint / f".{MANIFEST}"
    draft.write_text(json.dumps({**about, "files": sizes}, indent=2), encoding="utf-8")
    draft.replace(checkpoint / MANIFEST)


def remove_older(directory: Path, keep: int) -> None:
    """Remove all but the newest `keep` complete checkpoints, and incomplete ones older than those."""
    found = sorted(
        (int(name[1]), path) for path in directory.iterdir() if (name := _NAME.fullmatch(path.name))
    )
    complete = [step for step, path in found if is_complete(path)]
    first_kept = min(complete[-keep:], default=0)
    for step, path in found:
        if step < first_kept:
            shutil.rmtree(path)


class CheckpointCallback(Callback):
    """Completes each checkpoint: adds the reference model, commits rows, then writes the manifest.

    `commit` commits the rows that the run has buffered: a step whose weights are kept must not lose its rows.
    """

    def __init__(self, commit: Callable[[], None], *, keep: int, run_id: str) -> None:
        self.commit = commit
        self.keep = keep
        self.run_id = run_id
        self.trainer: Any = None

    def watch(self, trainer: Any) -> None:
        """Set the trainer whose checkpoints are completed.

        Raises `UsageError` where the weights of a moving reference cannot be gathered, as under FSDP1.
        """
        self.trainer = trainer
        plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
        if plugin is not None and plugin.fsdp_version == 1 and getattr(trainer.args, "sync_ref_model", False):
            raise UsageError(
                "FSDP1 does not expose the weights of a moving reference model, so they cannot be saved",
                where="grpo.trainer.sync_ref_model",
                remedy="use FSDP2 (fsdp_version: 2) or DeepSpeed",
            )

    def on_save(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        """Complete the checkpoint that the trainer has just written."""
        directory = Path(args.output_dir)
        checkpoint = directory / f"checkpoint-{state.global_step}"
        save_reference(self.trainer, checkpoint)
        # Other processes write their own random states into the same directory.
        self.trainer.accelerator.wait_for_everyone()
        if not state.is_world_process_zero:
            return
        self.commit()
        write_manifest(checkpoint, {"run_id": self.run_id, "step": state.global_step})
        remove_older(directory, self.keep)


def save_reference(trainer: Any, checkpoint: Path) -> None:
    """Save a moving reference model (`sync_ref_model`), which transformers leaves out of checkpoints.

    Call it in all processes; the main one writes.
    """
    if not getattr(trainer.args, "sync_ref_model", False):
        return
    weights = gather_weights(trainer.accelerator.unwrap_model(trainer.ref_model))
    if trainer.accelerator.is_main_process:
        (checkpoint / REFERENCE).mkdir(exist_ok=True)
        torch_format = require_module("safetensors.torch", "train")
        torch_format.save_file(weights, checkpoint / REFERENCE / "model.safetensors")


def load_reference(trainer: Any, checkpoint: Path) -> None:
    """Load a reference model that `save_reference` saved; does nothing where there is none."""
    file = checkpoint / REFERENCE / "model.safetensors"
    if file.is_file():
        torch_format = require_module("safetensors.torch", "train")
        scatter_weights(trainer.accelerator.unwrap_model(trainer.ref_model), torch_format.load_file(file))
