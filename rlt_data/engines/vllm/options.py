"""Options of a vLLM engine: checked by vLLM's own parser and configuration before any weight is read."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from rlt_data.suggestions import suggest_name

RESERVED = {
    "model": "--teacher names the model",
    "model_weights": "the model is already resolved to exact files",
    "tokenizer": "prompts are rendered with the model's own tokenizer",
    "tokenizer_revision": "prompts are rendered with the model's own tokenizer",
    "revision": "the model is already resolved to exact files",
    "code_revision": "code that comes with a model is never run",
    "trust_remote_code": "code that comes with a model is never run",
    "skip_tokenizer_init": "finding stop texts needs the tokenizer",
    "runner": "the engine generates text",
    "convert": "the engine generates text",
    "logprobs_mode": "log-probabilities are always those under the sampling temperature (processed)",
    "disable_log_stats": "statistics are not logged",
    "enable_lora": "--teacher names a LoRA adapter: its directory, or its hub id",
    "data_parallel_size": "one engine runs in one process; start `vllm serve` and use --engine openai",
    "hf_token": "files are fetched before the engine starts",
}
"""Options that are not passed through, and why."""

MODEL_OPTIONS = (
    "hf_config_path",
    "hf_overrides",
    "kv_cache_dtype",
    "logits_processors",
    "lora_target_modules",
    "model_class_overrides",
    "quantization",
    "quantization_config",
)
"""Options that change what a model computes by more than rounding; part of a generation's identity."""

_SAFE_LOAD_FORMATS = ("safetensors", "fastsafetensors", "runai_streamer", "instanttensor")
_DEFAULT_CPU_CACHE_BYTES = 4 << 30
_CPU_BATCH_TOKENS = 4096
_PYDANTIC_TAIL = re.compile(r" \[type=.*?(?=\n|$)|\n\s+For further information visit \S+", re.DOTALL)


class RefusedError(Exception):
    """The engine cannot start with these options: what is wrong, which option, what to do."""

    def __init__(self, what: str, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy


def select_model_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Select the options that change what the model computes."""
    return {name: options[name] for name in MODEL_OPTIONS if options.get(name) is not None}


def check_option_names(options: Mapping[str, Any], names: set[str]) -> None:
    """Refuse reserved options, unsafe load formats, and options that are not among vLLM's `names`."""
    for name in options:
        if name in RESERVED:
            raise RefusedError(
                f"the option {name!r} of vLLM cannot be set here: {RESERVED[name]}", where=name
            )
        if name not in names:
            raise RefusedError(
                f"vLLM has no engine option {name!r}",
                where=name,
                remedy=suggest_name(
                    name, names - set(RESERVED), otherwise="see `vllm serve --help=all` for the names"
                ),
            )
    load_format = options.get("load_format", "safetensors")
    if load_format not in _SAFE_LOAD_FORMATS:
        raise RefusedError(
            f"weights are loaded from safetensors files only, not as {load_format!r}",
            where="load_format",
            remedy=f"use one of {', '.join(_SAFE_LOAD_FORMATS)}",
        )


def write_arguments(options: Mapping[str, Any], parser: argparse.ArgumentParser) -> list[str]:
    """Write typed options as vLLM's own command-line arguments, so that its parser checks their values.

    Raises `RefusedError` for a switch that is neither true nor false.
    """
    actions = {action.dest: action for action in parser._actions}
    arguments: list[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        action = actions[name]
        if value is None:
            continue
        if isinstance(action, argparse.BooleanOptionalAction):
            truth = {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())
            if truth is None:
                raise RefusedError(f"the option {name!r} must be true or false, not {value!r}", where=name)
            arguments.append(flag if truth else "--no-" + flag[2:])
        elif isinstance(value, (list, tuple)):
            arguments += [flag, *map(str, value)]
        else:
            arguments.append(f"{flag}={json.dumps(value) if isinstance(value, Mapping) else value}")
    return arguments


def parse_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check names and values of options against vLLM's parser and return the values as it types them.

    Raises `RefusedError` naming the option.
    """
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    EngineArgs.add_cli_args(parser)
    fields = {field.name for field in dataclasses.fields(EngineArgs)}
    check_option_names(options, fields & {action.dest for action in parser._actions})
    try:
        parsed = parser.parse_args(write_arguments(options, parser))
    except argparse.ArgumentError as error:
        raise RefusedError(f"vLLM refuses an option: {shorten_validation(error)}") from error
    return {name: getattr(parsed, name) for name in options}


def shorten_validation(error: Exception) -> str:
    """Shorten a validation error of vLLM to one line, without pydantic's links and dumps of the input."""
    text = _PYDANTIC_TAIL.sub("", str(error))
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def choose_cpu_defaults(options: Mapping[str, Any], context: int) -> dict[str, Any]:
    """Choose defaults for a machine without an accelerator, for prompts of at most `context` tokens.

    Nothing is compiled. The key-value cache is small: vLLM itself would take nine tenths of the memory.
    Prompts are processed whole: vLLM 0.31 rewinds a seeded generator after each part of a prompt, which
    the CPU's generators cannot do, and its worker crashes. Raises `RefusedError` where options conflict with
    that.
    """
    if options.get("enable_chunked_prefill"):
        raise RefusedError(
            "on a CPU, vLLM crashes when a prompt with a seed is processed in parts",
            where="enable_chunked_prefill",
            remedy="omit this option",
        )
    if context < 0:
        raise RefusedError(
            "on a CPU, vLLM processes prompts whole, so max_model_len must be a number of tokens",
            where="max_model_len",
            remedy="set a number of tokens, or omit this option",
        )
    defaults: dict[str, Any] = {
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(context, _CPU_BATCH_TOKENS),
    }
    chosen = {"kv_cache_memory_bytes", "gpu_memory_utilization"} & set(options)
    if not chosen and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        defaults["kv_cache_memory_bytes"] = min(_DEFAULT_CPU_CACHE_BYTES, free // 4)
    return defaults


def limit_scored_tokens(vocabulary: int, memory_bytes: int) -> int:
    """Choose how many tokens vLLM may process in a step when it returns prompt log-probabilities.

    It holds about three float32 copies of `[tokens, vocabulary]` (logits, log-probabilities, and the copy
    that ranks are taken from), so memory grows with the step, not with the text.
    """
    return max(32, min(8192, memory_bytes // (3 * 4 * vocabulary)))
