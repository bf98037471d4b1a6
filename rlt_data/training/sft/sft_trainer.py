"""TRL's SFTTrainer on pretokenized examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlt_data.errors import require_module
from rlt_data.models.loading import hide_progress_bars
from rlt_data.training.common.distributed import World, keep_to_one_device
from rlt_data.training.sft.checks.batches import PackingCheck, check_loss_terms, check_padding
from rlt_data.training.sft.tokenized import TokenizedExamples, make_filler


def run_sft_trainer(
    model: Any,
    tokenizer: Any,
    examples: TokenizedExamples,
    dataset: Any = None,
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
    is off, so that it trains on exactly these tokens and labels. `dataset` holds them as rows: those of
    `examples.make_packed_dataset`, with the option `packing`, or by default one row an example. `on_built`
    is called with the trainer before it trains. `adapter` is a `peft.LoraConfig` of an adapter to train
    instead of the weights.

    The mean loss of a step is over its labels, and steps depend on the seed: neither depends on processes,
    batch sizes or accumulation. Raises `UsageError` for a model whose attention or loss would not allow it.
    """
    trl = require_module("trl", "train")
    transformers = require_module("transformers", "train")
    datasets = require_module("datasets", "train")
    from rlt_data.training.sft.ordered_trainer import OrderedTrainer

    dataset = examples.make_dataset() if dataset is None else dataset
    if World().size > 1:
        filler = make_filler(int(examples.token_ids[-1]), packed="seq_lengths" in dataset.column_names)
        dataset = datasets.concatenate_datasets(
            [dataset, datasets.Dataset.from_list([filler], features=dataset.features)]
        )
    config = trl.SFTConfig(
        **{
            "output_dir": str(output_dir),
            "dataset_kwargs": {"skip_prepare_dataset": True},
            # Nothing is truncated: TRL's default is 1,024 tokens.
            "max_length": None,
            "report_to": "none",
            "disable_tqdm": True,
            **options,
        }
    )
    keep_to_one_device(config)
    with hide_progress_bars():
        trainer = OrderedTrainer(
            model=model,
            args=config,
            train_dataset=dataset,
            processing_class=tokenizer,
            callbacks=list(callbacks),
            peft_config=adapter,
        )
    # With progress bars off, transformers prints every log as a dictionary.
    trainer.remove_callback(transformers.PrinterCallback)
    check_loss_terms(trainer)
    check_padding(trainer, examples)
    if trainer.padding_free:
        trainer.add_callback(PackingCheck(trainer, examples))
    if on_built is not None:
        on_built(trainer)
    if resume_from is not None:
        _restore_token_count(trainer, resume_from)
    with hide_progress_bars():
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    return trainer


def _restore_token_count(trainer: Any, checkpoint: Path) -> None:
    """Restore the token count of a checkpoint."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    seen = [entry["num_tokens"] for entry in state["log_history"] if "num_tokens" in entry]
    if seen:
        trainer.restore_token_count(int(float(seen[-1])), int(state["global_step"]))
