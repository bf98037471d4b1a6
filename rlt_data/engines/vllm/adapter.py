"""LoRA adapters in vLLM: refuse what it cannot apply exactly, before any weight is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from rlt_data.engines.vllm.options import RefusedError


def choose_adapter_options(directory: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Choose vLLM's options for the adapter in `directory`; those in `options` come first.

    vLLM has buffers for a few ranks only; the smallest that holds the adapter's is used. Raises
    `RefusedError` for an adapter that vLLM cannot apply, or would apply wrongly.
    """
    from vllm.config.lora import LoRAConfig, MaxLoRARanks
    from vllm.lora.peft_helper import PEFTHelper

    file = Path(directory) / "adapter_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    try:
        helper = PEFTHelper.from_dict(settings)
        ranks = sorted(get_args(MaxLoRARanks))
        rank = options.get("max_lora_rank", min((r for r in ranks if r >= helper.r), default=ranks[-1]))
        helper.validate_legal(LoRAConfig(max_lora_rank=rank))
        if settings.get("peft_type", "LORA") != "LORA":
            raise ValueError(f"an adapter of type {settings['peft_type']} is not a LoRA adapter")
        for name in ("rank_pattern", "alpha_pattern"):
            if settings.get(name):
                raise ValueError(f"vLLM scales all modules alike and would apply {name} wrongly")
    except (ValueError, TypeError) as error:
        raise RefusedError(
            f"vLLM cannot apply this adapter: {error}",
            where=str(file),
            remedy="merge the adapter into its base model, or use --engine transformers",
        ) from error
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}


def make_adapter_request(directory: str | None) -> Any:
    """Make vLLM's request for the adapter in `directory`; None without one."""
    if directory is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest("teacher", 1, directory)
