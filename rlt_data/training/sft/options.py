"""The options of `trl.SFTConfig` that a configuration of supervised fine-tuning means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlt_data.errors import UsageError
from rlt_data.training.common.distributed import choose_precision
from rlt_data.training.common.trl_options import RESERVED, RESERVED_SFT, build_lora, build_options
from rlt_data.training.sft.config import SftConfig


def list_options(config: SftConfig, output: Path) -> dict[str, Any]:
    """List all options of `trl.SFTConfig`: those of the recipe over this program's defaults."""
    return {
        "logging_steps": 1,
        # Else the trainer logs the mean of earlier steps instead of a loss that is not finite.
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "save_strategy": "steps",
        "save_steps": 100,
        **choose_precision(config.trainer),
        **config.trainer,
        "save_total_limit": None,
        "seed": config.seed,
        "output_dir": str(output),
        "disable_tqdm": True,
        # Texts that are too long have been handled; TRL would truncate at 1,024 tokens.
        "max_length": None,
        "packing": config.packing,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }


def check_options(config: SftConfig) -> Any:
    """Build the `trl.SFTConfig` of a training, and check its LoRA options. Raises as `build_options` does."""
    build_lora(config.lora, where="sft.lora")
    own = {**choose_precision(config.trainer), **config.trainer}
    build_options("SFTConfig", own, where="sft.trainer", reserved={**RESERVED, **RESERVED_SFT})
    options = build_options("SFTConfig", list_options(config, Path(config.output)), where="sft.trainer")
    strategy = getattr(options, "train_sampling_strategy", "random")
    if strategy not in ("random", "sequential"):
        raise UsageError(
            f"train_sampling_strategy {strategy!r} gives a resumed training another order",
            where="sft.trainer.train_sampling_strategy",
            remedy="random (the default) or sequential",
        )
    return options
