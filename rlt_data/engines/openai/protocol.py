"""Build requests for an OpenAI-compatible server and read its answers; nothing here uses the network.

Servers differ. `ServerTraits` holds what one was found to support; what an answer leaves open is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, assert_never

from rlt_data.engines.base import Completion, FinishReason, GenerationRequest, SamplingParameters

Api = Literal["completions", "chat"]
ServerLogprobMode = Literal["processed", "raw"]

PROBE_PROMPT = "The"

# vLLM takes what a request omits from the model's generation_config.json.
_VLLM_NEUTRAL = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
_LARGE = 1 << 31
_ROUNDING = 1e-3


# A token is a few characters; the longest of common vocabularies are runs of 256 spaces.
_CHARACTERS_PER_TOKEN = 256
_CHARACTERS_BESIDES = 1024


class UnreadableAnswerError(Exception):
    """An answer that cannot be the completion that was requested; `reason` is a short code."""

    def __init__(self, detail: str, reason: str = "invalid_answer") -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class ServerTraits:
    """What a server can do for one model.

    `logprob_mode` is `processed` where its log-probabilities change with the temperature, `raw` where they
    do not, None where it sends none. `is_vllm` means that it accepts vLLM's own parameters. `context` is in
    tokens; `model` is the name that the server uses.
    """

    api: Api
    logprob_mode: ServerLogprobMode | None
    is_vllm: bool
    context: int | None
    model: str


def build_body(
    traits: ServerTraits, request: GenerationRequest, sampling: SamplingParameters
) -> dict[str, Any]:
    """Build the body of one request: standard fields, and vLLM's own where the server is vLLM."""
    body: dict[str, Any] = {
        "model": traits.model,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": request.seed,
        "stop": list(sampling.stop),
    }
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    match traits.api:
        case "chat":
            body["messages"] = [{"role": role, "content": content} for role, content in request.messages]
            if traits.logprob_mode is not None:
                body["logprobs"] = True
        case "completions":
            body["prompt"] = request.prompt
            if traits.logprob_mode is not None:
                body["logprobs"] = 0 if traits.is_vllm else 1
            if traits.is_vllm:
                body["add_special_tokens"] = False
        case _:
            assert_never(traits.api)
    if traits.is_vllm:
        body |= {
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "return_token_ids": True,
            **_VLLM_NEUTRAL,
            "top_k": sampling.top_k,
        }
    return body


def build_probe(model: str, api: Api, temperature: float, *, logprobs: bool, is_vllm: bool) -> dict[str, Any]:
    """Build a request for one token, with the log-probability of the likeliest one."""
    body: dict[str, Any] = {"model": model, "max_tokens": 1, "temperature": temperature, "top_p": 1.0}
    if is_vllm:
        body |= _VLLM_NEUTRAL
    match api:
        case "chat":
            body["messages"] = [{"role": "user", "content": PROBE_PROMPT}]
            if logprobs:
                body |= {"logprobs": True, "top_logprobs": 1}
        case "completions":
            body["prompt"] = PROBE_PROMPT
            if logprobs:
                body["logprobs"] = 1
        case _:
            assert_never(api)
    return body


def read_top_logprob(answer: Mapping[str, Any]) -> float | None:
    """Read the log-probability (nats) of the likeliest token from the answer to a probe; None without one."""
    logprobs = answer["choices"][0].get("logprobs")
    if not isinstance(logprobs, dict):
        return None
    content = logprobs.get("content")
    if isinstance(content, list) and content:
        values = [entry.get("logprob") for entry in content[0].get("top_logprobs") or []]
    else:
        first = (logprobs.get("top_logprobs") or [None])[0]
        values = list(first.values()) if isinstance(first, dict) else []
    found = [float(value) for value in values if isinstance(value, (int, float))]
    return max(found) if found else None


@dataclass(frozen=True)
class Answer:
    """One completion, and whether the server reported what ended it."""

    completion: Completion
    ending_reported: bool


def read_answer(
    answer: Mapping[str, Any], request: GenerationRequest, sampling: SamplingParameters, traits: ServerTraits
) -> Answer:
    """Read the first choice of an answer that `parse_answer` returned.

    A stop text that the server omitted is restored. Where the server reports `stop` without what stopped
    it, the stop text is assumed: nothing distinguishes it from the end token (`ending_reported`). A field of
    a wrong type counts as omitted.

    Raises `UnreadableAnswerError` where there is no text, or more than `max_tokens` tokens can hold.
    """
    choice = answer["choices"][0]
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if text is None:
        raise UnreadableAnswerError(
            f"the answer has no text (finish_reason {choice.get('finish_reason')!r:.40})"
        )
    if not isinstance(text, str):
        raise UnreadableAnswerError(f"the answer's text is {type(text).__name__}, not a string")
    if len(text) > _CHARACTERS_PER_TOKEN * sampling.max_tokens + _CHARACTERS_BESIDES:
        raise UnreadableAnswerError(
            f"the answer's text has {len(text):,} characters for at most {sampling.max_tokens} tokens",
            "answer_too_large",
        )
    # JSON may contain lone surrogates, which a table cannot store.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    finish, reported = _read_finish(choice)
    stop = next((stop for stop in sampling.stop if text.endswith(stop)), None)
    if stop is not None:
        finish, reported = "stop", True
    elif finish == "stop":
        matched = choice.get("stop_reason", choice.get("matched_stop"))
        text += matched if isinstance(matched, str) else sampling.stop[0] if sampling.stop else ""
    tokens = _read_token_ids(choice)
    if tokens is not None and len(tokens) > sampling.max_tokens:
        raise UnreadableAnswerError(
            f"the answer has {len(tokens):,} tokens, and at most {sampling.max_tokens} were requested",
            "answer_too_large",
        )
    logprobs = _read_logprobs(choice)
    if tokens is not None and logprobs is not None and len(tokens) != len(logprobs):
        logprobs = None
    if finish == "end" and tokens is not None and traits.is_vllm:
        text = _drop_end_token(text, choice)
    return Answer(
        Completion(
            key=request.key,
            text=text,
            token_ids=tokens,
            logprobs=logprobs,
            finish_reason=finish,
            prompt_tokens=_read_count(answer, "prompt_tokens"),
            completion_tokens=_read_count(answer, "completion_tokens") or (len(tokens) if tokens else None),
        ),
        reported,
    )


def read_prompt_tokens(answer: Mapping[str, Any]) -> int | None:
    """Read how many tokens the prompt of an answer has; None where the server does not report it."""
    return _read_count(answer, "prompt_tokens")


def _read_count(answer: Mapping[str, Any], name: str) -> int | None:
    usage = answer.get("usage")
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if type(count) is int and 0 <= count < _LARGE else None


def _read_token_ids(choice: Mapping[str, Any]) -> tuple[int, ...] | None:
    found = choice.get("token_ids")
    if not isinstance(found, list) or any(type(id) is not int or not 0 <= id < _LARGE for id in found):
        return None
    return tuple(found)


def _read_finish(choice: Mapping[str, Any]) -> tuple[FinishReason, bool]:
    """Read what ended a completion, and whether the server reported that unambiguously."""
    reason = choice.get("finish_reason")
    if reason == "length":
        return "length", True
    if reason not in ("stop", "eos", "eos_token", "stop_sequence"):
        return "partial", True
    if reason != "stop":
        return ("stop" if reason == "stop_sequence" else "end"), True
    for name in ("stop_reason", "matched_stop"):
        if name in choice:
            return ("stop" if isinstance(choice[name], str) else "end"), True
    return "stop", False


def _read_logprobs(choice: Mapping[str, Any]) -> tuple[float, ...] | None:
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return None
    content = logprobs.get("content")
    values = (
        [entry.get("logprob") if isinstance(entry, dict) else None for entry in content]
        if isinstance(content, list)
        else logprobs.get("token_logprobs")
    )
    if not isinstance(values, list) or not values:
        return None
    # A log-probability is a number and not above 0, up to rounding.
    if any(type(value) not in (int, float) or not -_LARGE < value < _ROUNDING for value in values):
        return None
    return tuple(float(value) for value in values)


def _drop_end_token(text: str, choice: Mapping[str, Any]) -> str:
    """Remove the text of the end token, which vLLM includes when special tokens are shown."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return text
    names, content = logprobs.get("tokens"), logprobs.get("content")
    if isinstance(content, list):
        names = [entry.get("token") if isinstance(entry, dict) else "" for entry in content]
    return text.removesuffix(str(names[-1])) if isinstance(names, list) and names else text
