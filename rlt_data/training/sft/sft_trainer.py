"""TRL's SFTTrainer on pretokenized examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlt_data.errors import require_module
from rlt_data.models.loading import hide_progress_bars
from rlt_data.training.common.distributed import keep_to_one_device
from rlt_data.training.sft.examples import SupervisedExample


def run_sft_trainer(
    model: Any,
    tokenizer: Any,
    examples: Sequence[SupervisedExample],
    *,
    options: Mapping[str, Any],
    output_dir: Path,
    callbacks: Sequence[Any] = (),
    resume_from: Path | None = None,
    on_built: Callable[[Any], None] | None = None,
    adapter: Any = None,
) -> Any:
    """Train `model`, a loaded one (in place) or a directory, on `examples`; return the trainer.

    `options` are fields of `trl.SFTConfig`. TRL's own preparation of texts (templates, truncation, packing)
    is off, so that it trains on exactly these tokens and labels. `on_built` is called with the trainer
    before it trains. `adapter` is a `peft.LoraConfig` of an adapter to train instead of the weights.
    """
    trl = require_module("trl", "train")
    datasets = require_module("datasets", "train")
    transformers = require_module("transformers", "train")
    dataset = datasets.Dataset.from_dict(
        {
            "input_ids": [example.token_ids for example in examples],
            "labels": [example.labels for example in examples],
        }
    )
    config = trl.SFTConfig(
        **{
            "output_dir": str(output_dir),
            "dataset_kwargs": {"skip_prepare_dataset": True},
            "report_to": "none",
            "disable_tqdm": True,
            **options,
        }
    )
    keep_to_one_device(config)
    with hide_progress_bars():
        trainer = trl.SFTTrainer(
            model=model,
            args=config,
            train_dataset=dataset,
            processing_class=tokenizer,
            callbacks=list(callbacks),
            peft_config=adapter,
        )
    # With progress bars off, transformers prints every log as a dictionary.
    trainer.remove_callback(transformers.PrinterCallback)
    if on_built is not None:
        on_built(trainer)
    if resume_from is not None:
        _restore_token_count(trainer, resume_from)
    with hide_progress_bars():
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    return trainer


def _restore_token_count(trainer: Any, checkpoint: Path) -> None:
    """Restore the token count of a checkpoint; TRL restarts it at 0."""
    history = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    seen = [entry["num_tokens"] for entry in history if "num_tokens" in entry]
    if seen and hasattr(trainer, "_total_train_tokens"):
        trainer._total_train_tokens = int(float(seen[-1]))
