"""Options of GRPO that are valid one by one but not together; `--dry-run` reports them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from rlt_data.training.common.requirements import find_missing_packages
from rlt_data.training.rl.config import AnyGrpoConfig, GrpoConfig


def find_conflicts(config: AnyGrpoConfig, options: Any, *, context: int | None) -> list[str]:
    """List the reasons why a GRPO training cannot start; `options` is its `trl.GRPOConfig`.

    `context` is the context length of the model to train in tokens; None where it is unknown.
    """
    found = []
    section = config.section
    longest = config.max_prompt_tokens + config.max_tokens
    if context is not None and longest > context:
        found.append(
            f"prompt and completion may take {longest:,} tokens, but the {config.role}'s context is "
            f"{context:,}: lower {section}.max_prompt_tokens or {section}.max_tokens"
        )
    limit = getattr(options, "vllm_max_model_length", None)
    if options.use_vllm and limit is not None and longest > limit:
        found.append(
            f"prompt and completion may take {longest:,} tokens, but vllm_max_model_length is {limit:,}"
        )
    if options.sync_ref_model and not options.beta:
        found.append("sync_ref_model needs a reference model, and without beta there is none: set beta")
    if options.sync_ref_model and config.lora is not None:
        found.append("sync_ref_model needs a reference model, and LoRA keeps none: remove one of them")
    if options.use_vllm and find_spec("vllm") is None:
        found.append("use_vllm needs the package 'vllm': pip install 'rlt-data[vllm]'")
    if isinstance(config, GrpoConfig):
        found += _find_student_conflicts(config, options)
    return [*found, *find_missing_packages(options)]


def _find_student_conflicts(config: GrpoConfig, options: Any) -> list[str]:
    """List the reasons that lie in how the students of the reward are loaded and compared."""
    found = []
    needs_reference = config.reward.needs_students and config.teacher_logprobs == "reference"
    if needs_reference and not options.beta and config.lora is None:
        found.append(
            "teacher_logprobs is 'reference', and without beta there is no reference model: set beta"
        )
    if config.student_quantization != "none" and find_spec("bitsandbytes") is None:
        found.append("8-bit and 4-bit students need the package 'bitsandbytes': pip install bitsandbytes")
    return found
