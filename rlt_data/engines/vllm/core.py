"""vLLM itself, in the process that holds it: configure the engine, add requests, run steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, assert_never

from rlt_data.engines.base import FinishReason, explain_over_context, fit_max_tokens
from rlt_data.engines.vllm.adapter import choose_adapter_options, make_adapter_request
from rlt_data.engines.vllm.messages import EngineSetup, Item
from rlt_data.engines.vllm.options import (
    RefusedError,
    choose_cpu_defaults,
    limit_scored_tokens,
    parse_options,
    shorten_validation,
)
from rlt_data.engines.vllm.tokenizer import provide_tokenizer


class VllmCore:
    """One engine, stepped by its caller: requests may be added between any two steps.

    Raises `RefusedError` where vLLM cannot run with this setup.
    """

    def __init__(self, setup: EngineSetup) -> None:
        from vllm.v1.engine.llm_engine import LLMEngine

        self._purpose = setup["purpose"]
        self._adapter = make_adapter_request(setup["adapter"])
        with provide_tokenizer(Path(setup["tokenizer"])) as tokenizer:
            config = _configure(setup, tokenizer)
            _check_head_size(config)
            self._config = config
            self._engine = LLMEngine.from_vllm_config(config, disable_log_stats=True)
            self._tokenizer = self._engine.get_tokenizer()
        self._context: int = config.model_config.max_model_len
        self._prompt: tuple[str, list[int]] = ("", [])

    @property
    def busy(self) -> bool:
        """Whether a request is waiting or running."""
        return bool(self._engine.has_unfinished_requests())

    def describe(self) -> dict[str, Any]:
        """Return what the parent needs: context in tokens, rows of a batch, types, prefix caching, device."""
        from vllm.platforms import current_platform

        return {
            "context": self._context,
            "rows": self._config.scheduler_config.max_num_seqs,
            "quantization": _describe_quantization(self._config),
            "dtype": str(self._config.model_config.dtype).removeprefix("torch."),
            "prefix_caching": bool(self._config.cache_config.enable_prefix_caching),
            "device": current_platform.device_type,
        }

    def add_requests(self, requests: Sequence[Item], sampling: Mapping[str, Any]) -> list[Item]:
        """Add `[key, prompt, seed]` requests; return those that fail at once, as `[key, reason, detail]`."""
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        failed: list[Item] = []
        for key, prompt, seed in requests:
            token_ids = self._tokenize(prompt)
            if not token_ids:
                failed.append([key, "empty_prompt", "the prompt has no tokens"])
                continue
            room = fit_max_tokens(len(token_ids), sampling["max_tokens"], self._context)
            if not room:
                failed.append([key, "over_context", explain_over_context(len(token_ids), self._context)])
                continue
            parameters = SamplingParams(
                temperature=sampling["temperature"],
                top_p=sampling["top_p"],
                top_k=sampling["top_k"],
                max_tokens=room,
                seed=seed,
                stop=sampling["stop"],
                include_stop_str_in_output=True,
                skip_special_tokens=False,
                spaces_between_special_tokens=False,
                logprobs=0,
                flat_logprobs=True,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            self._engine.add_request(
                key, tokens_input(token_ids), parameters, lora_request=self._adapter, prompt_text=None
            )
        return failed

    def add_texts(self, texts: Sequence[Item]) -> None:
        """Add `[key, token_ids]` texts whose tokens are to be scored."""
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            temperature=1.0,
            max_tokens=1,
            prompt_logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        for key, token_ids in texts:
            self._engine.add_request(key, tokens_input(token_ids), parameters, lora_request=self._adapter)

    def step(self) -> tuple[list[Item], list[Item]]:
        """Run one step; return finished completions and finished scores.

        A completion is `[key, text, token_ids, logprobs, finish_reason, prompt_tokens, cached_tokens]`;
        a score is `[key, logprobs]` with the natural log-probability of every token but the first. A request
        that failed is `[key, reason, detail]` in either list.
        """
        completions: list[Item] = []
        scores: list[Item] = []
        for output in self._engine.step():
            reason = output.outputs[0].finish_reason
            if not output.finished or reason == "abort":
                continue
            failed = None
            if reason not in ("stop", "length"):
                failed = [output.request_id, "engine_error", f"vLLM ended the request with {reason!r}"]
            match self._purpose:
                case "generate":
                    completions.append(failed or self._write_completion(output))
                case "score":
                    scores.append(failed or [output.request_id, list(output.prompt_logprobs.logprobs)])
                case _:
                    assert_never(self._purpose)
        return completions, scores

    def abort(self) -> None:
        """Drop every request that is waiting or running."""
        states = self._engine.output_processor.request_states
        self._engine.abort_request(list(states), internal=True)

    def _tokenize(self, prompt: str) -> list[int]:
        """Tokenize a rendered prompt. The samples of one question come together, so the last is cached."""
        if prompt != self._prompt[0]:
            self._prompt = (prompt, self._tokenizer.encode(prompt, add_special_tokens=False))
        return self._prompt[1]

    def _write_completion(self, output: Any) -> Item:
        answer = output.outputs[0]
        token_ids = list(answer.token_ids)
        logprobs = list(answer.logprobs.logprobs)
        if len(logprobs) != len(token_ids):
            raise RuntimeError(f"{len(token_ids)} tokens came with {len(logprobs)} log-probabilities")
        text: str = answer.text
        reason: FinishReason = "length"
        if answer.finish_reason == "stop":
            # The stop text where there was one, else an end token.
            reason = "stop" if isinstance(answer.stop_reason, str) else "end"
        if reason == "end":
            text = text.removesuffix(self._tokenizer.decode(token_ids[-1:], skip_special_tokens=False))
        prompt_tokens = len(output.prompt_token_ids)
        return [output.request_id, text, token_ids, logprobs, reason, prompt_tokens, output.num_cached_tokens]


def _describe_quantization(config: Any) -> str | None:
    """Return how weights or cache are quantized; None where they are not."""
    cache = config.cache_config.cache_dtype
    weights = config.model_config.quantization
    return weights or (f"cache-{cache}" if str(cache).startswith("fp8") else None)


def _configure(setup: EngineSetup, tokenizer: Path) -> Any:
    """Build vLLM's own configuration, which checks options against each other and against the model."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform

    device = setup["device"]
    if device not in ("auto", current_platform.device_type):
        raise RefusedError(
            f"this build of vLLM runs on {current_platform.device_type}, not on {device}",
            where="device",
            remedy="omit the device, or use --engine transformers",
        )
    options = parse_options(setup["options"])
    fixed: dict[str, Any] = {
        "model": setup["model"],
        "tokenizer": str(tokenizer),
        "dtype": setup["dtype"],
        "logprobs_mode": "processed_logprobs",
        "disable_log_stats": True,
        "load_format": "safetensors",
    }
    if current_platform.is_cpu():
        fixed |= choose_cpu_defaults(options, options.get("max_model_len") or setup["context"])
    if setup["max_rows"]:
        fixed["max_num_seqs"] = setup["max_rows"]
    if setup["adapter"] is not None:
        fixed |= choose_adapter_options(setup["adapter"], options)
    match setup["purpose"]:
        case "generate":
            pass
        case "score":
            limit = limit_scored_tokens(setup["vocabulary"], setup["memory_bytes"])
            fixed |= {
                "enable_prefix_caching": False,
                "enable_chunked_prefill": True,
                "max_num_batched_tokens": limit,
                "max_num_seqs": min(64, limit),
            }
        case _:
            assert_never(setup["purpose"])
    try:
        return EngineArgs(**{**fixed, **options}).create_engine_config()
    except (ValueError, TypeError, NotImplementedError) as error:
        what = shorten_validation(error)
        if "derived max_model_len" in what:
            raise RefusedError(
                f"max_model_len exceeds the model's context: {what}",
                where="max_model_len",
                remedy="set max_model_len to at most the model's context",
            ) from error
        raise RefusedError(f"vLLM refuses this configuration: {what}") from error


def _check_head_size(config: Any) -> None:
    """Refuse head sizes without a CPU kernel, which vLLM itself detects only during the first step."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    size = config.model_config.get_head_size()
    supported = CPUAttentionBackend.get_supported_head_sizes()
    if size not in supported:
        raise RefusedError(
            f"vLLM on a CPU has no attention kernel for heads of size {size}, only for "
            f"{', '.join(map(str, supported))}",
            where=str(config.model_config.model),
            remedy="use --engine transformers for this model",
        )
