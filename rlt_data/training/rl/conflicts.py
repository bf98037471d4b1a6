"""What a training refuses at its start although every single option is valid; `--dry-run` tells it too."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from rlt_data.errors import UsageError, require_module
from rlt_data.suggestions import find_nearest
from rlt_data.training.rl.config import GrpoConfig

# Trackers under the name of `report_to`, where it is not that of their package.
_TRACKERS = {
    "azure_ml": "azureml",
    "clearml": "clearml",
    "flyte": "flytekit",
    "kubeflow": "kubeflow",
}


def find_conflicts(config: GrpoConfig, options: Any, *, context: int | None) -> list[str]:
    """List what speaks against a GRPO training; `options` is its `trl.GRPOConfig`.

    `context` is the longest text that the teacher reads, tokens.
    """
    found = []
    longest = config.max_prompt_tokens + config.max_tokens
    if context is not None and longest > context:
        found.append(
            f"prompt and completion may take {longest:,} tokens, and the teacher reads {context:,}: "
            "lower grpo.max_prompt_tokens or grpo.max_tokens"
        )
    limit = getattr(options, "vllm_max_model_length", None)
    if options.use_vllm and limit is not None and longest > limit:
        found.append(
            f"prompt and completion may take {longest:,} tokens, and vllm_max_model_length is {limit:,}"
        )
    if options.sync_ref_model and not options.beta:
        found.append("sync_ref_model mixes a reference model, and without beta there is none: set beta")
    if options.sync_ref_model and config.lora is not None:
        found.append("sync_ref_model needs a whole reference model, and LoRA keeps none: drop one of them")
    if (
        config.reward == "rlt"
        and config.teacher_side == "reference"
        and not options.beta
        and config.lora is None
    ):
        found.append("teacher_side is reference, and without beta there is no reference policy: set beta")
    if options.use_vllm and find_spec("vllm") is None:
        found.append("use_vllm needs the package 'vllm': pip install 'rlt-data[vllm]'")
    if config.student_quantization != "none" and find_spec("bitsandbytes") is None:
        found.append("8-bit and 4-bit students need the package 'bitsandbytes': pip install bitsandbytes")
    return [*found, *find_missing_packages(options)]


def find_missing_packages(options: Any) -> list[str]:
    """List packages that options of any TRL trainer ask for and that are not installed."""
    found = []
    trackers = options.report_to if isinstance(options.report_to, list) else [options.report_to or "none"]
    for name in trackers:
        known = _list_trackers()
        if name in ("none", "all"):
            continue
        if name not in known:
            near = find_nearest(name, known)
            found.append(f"report_to has no {name!r}" + (f": did you mean {near!r}?" if near else ""))
        elif find_spec(_TRACKERS.get(name, name)) is None:
            found.append(f"report_to asks for {name!r}, which is not installed: pip install {name}")
    if options.use_liger_kernel and find_spec("liger_kernel") is None:
        found.append("use_liger_kernel needs the package 'liger-kernel': pip install liger-kernel")
    if "8bit" in str(options.optim) and find_spec("bitsandbytes") is None:
        found.append("an 8-bit optimiser needs the package 'bitsandbytes': pip install bitsandbytes")
    return found


def refuse(found: Iterable[str], *, where: str) -> None:
    """Raise `UsageError` with everything that was found, where there is anything."""
    reasons = list(found)
    if reasons:
        raise UsageError("; ".join(reasons), where=where)


def _list_trackers() -> list[str]:
    integrations = require_module("transformers.integrations.integration_utils", "train")
    return list(integrations.INTEGRATION_TO_CALLBACK)
