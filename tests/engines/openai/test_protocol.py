"""Requests to a server, its answers, options and secrets; no network."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.engines import GenerationRequest, SamplingParameters
from rlt_data.engines.openai.options import hide_secrets, read_server_options
from rlt_data.engines.openai.protocol import ServerTraits, UnreadableAnswerError, build_body, read_answer
from rlt_data.engines.openai.reading import read_retry_after
from rlt_data.errors import UsageError
from rlt_data.stages.generate import GenerateConfig

CLOSE = "<|end_of_explanation|>"
SAMPLING = SamplingParameters(0.7, 1.0, 0, 64, (CLOSE,))
REQUEST = GenerationRequest("k", "p", 0)
KEY = "sk-a-very-secret-key"


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"engine_options": {"extra_headers": KEY}}, "extra_headers"),
        ({"engine": "openai", "base_url": "http://x/v1", "engine_options": {"other": KEY}}, "other"),
        ({"engine_options": {"api_key": KEY}}, "api_key"),
        ({"engine_options": {"Authorization": f"Bearer {KEY}"}}, "Authorization"),
        ({"base_url": f"http://me:{KEY}@127.0.0.1/v1"}, "base_url"),
        ({"base_url": f"http://127.0.0.1/v1?api_key={KEY}"}, "base_url"),
    ],
)
def test_secrets_are_refused_before_anything_is_stored(options: dict[str, Any], where: str) -> None:
    with pytest.raises(UsageError) as caught:
        GenerateConfig(teacher="x", **options)
    assert caught.value.where == where
    assert KEY not in str(caught.value)


def test_options_that_only_resemble_secrets_are_accepted() -> None:
    names = ("tokenizer_mode", "long_prefill_token_threshold", "max_num_batched_tokens", "spec_tokens")
    options = dict.fromkeys(names, "1")
    assert GenerateConfig(teacher="x", engine_options=options).make_engine_options().extra == options


def test_one_served_name_cannot_stand_for_several_teachers() -> None:
    options = {"base_url": "http://x/v1", "engine_options": {"served_model": "a"}}
    assert GenerateConfig(teacher="x", **options).is_served
    with pytest.raises(ValueError, match="several teachers"):
        GenerateConfig(teacher=("x", "y"), **options)


def test_unknown_options_are_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no option 'concurency'") as caught:
        read_server_options({"base_url": "http://localhost/v1", "concurency": 3})
    assert caught.value.remedy == "did you mean 'concurrency'?"
    with pytest.raises(UsageError, match="needs the address"):
        read_server_options({})
    with pytest.raises(UsageError, match="greater than or equal to 1"):
        read_server_options({"base_url": "http://localhost/v1", "concurrency": 0})


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:99999999/v1", "port should be from 1 to 65535"),
        ("http://127.0.0.1:-1/v1", "port should be from 1 to 65535"),
        ("http://127.0.0.1:0/v1", "port 0"),
        ("http://[::1/v1", "not valid"),
        ("http://local\x1bhost/v1", "control characters"),
        ("http://localhost/v1\n", "control characters"),
        ("http://local host/v1", "control characters"),
    ],
)
def test_an_address_that_no_server_has_is_refused(address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        read_server_options({"base_url": address})
    assert raised.value.where == "base_url"


def test_retry_after_is_seconds_or_a_date() -> None:
    assert read_retry_after(None) is None
    assert read_retry_after("2") == 2.0
    assert read_retry_after("-3") == 0.0
    assert read_retry_after("soon") is None
    later = read_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True))
    assert later == pytest.approx(30, abs=2)
    assert read_retry_after("1e9") == 600.0
    assert read_retry_after("inf") == 600.0
    assert read_retry_after("nan") is None


def test_secrets_are_hidden_completely() -> None:
    assert hide_secrets(f"a {KEY} b {KEY}", [None, KEY]) == "a [hidden] b [hidden]"


@pytest.mark.parametrize(
    ("choice", "text", "finish", "known"),
    [
        ({"text": "a", "finish_reason": "stop", "stop_reason": CLOSE}, f"a{CLOSE}", "stop", True),
        ({"text": f"a{CLOSE}", "finish_reason": "stop", "stop_reason": CLOSE}, f"a{CLOSE}", "stop", True),
        ({"text": "a", "finish_reason": "stop", "stop_reason": None}, "a", "end", True),
        ({"text": "a", "finish_reason": "stop", "matched_stop": 2}, "a", "end", True),
        ({"text": "a", "finish_reason": "stop"}, f"a{CLOSE}", "stop", False),
        ({"text": "a", "finish_reason": "length"}, "a", "length", True),
        ({"text": "a", "finish_reason": "abort"}, "a", "partial", True),
        ({"text": "", "finish_reason": "content_filter"}, "", "partial", True),
        ({"text": "a\ud800b", "finish_reason": "length"}, "a\ufffdb", "length", True),
        ({"message": {"content": "a"}, "finish_reason": "eos"}, "a", "end", True),
    ],
)
def test_what_ended_an_answer(choice: dict[str, Any], text: str, finish: str, known: bool) -> None:
    traits = ServerTraits("completions", None, False, None, "m")
    answer = read_answer({"choices": [choice]}, REQUEST, SAMPLING, traits)
    assert (answer.completion.text, answer.completion.finish_reason) == (text, finish)
    assert answer.ending_reported == known


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
NAMES = ("text", "message", "finish_reason", "stop_reason", "matched_stop", "token_ids", "logprobs")
LOGPROBS = st.fixed_dictionaries(
    {}, optional={"tokens": JSON, "token_logprobs": JSON | st.lists(st.floats()), "content": JSON}
)
CHOICES = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(NAMES, JSON)
    | {"finish_reason": st.sampled_from(["stop", "length", "eos", None]), "logprobs": LOGPROBS | JSON}
    | {"text": st.text(max_size=5) | JSON, "token_ids": st.lists(st.integers()) | JSON},
)


@given(CHOICES, JSON, st.booleans())
def test_an_answer_of_any_shape_is_read_or_refused(choice: dict[str, Any], usage: Any, vllm: bool) -> None:
    traits = ServerTraits("completions", "processed", vllm, None, "m")
    try:
        found = read_answer({"choices": [choice], "usage": usage}, REQUEST, SAMPLING, traits).completion
    except UnreadableAnswerError:
        return
    found.text.encode()
    for count in (found.prompt_tokens, found.completion_tokens, *(found.token_ids or ())):
        assert count is None or (type(count) is int and 0 <= count < 2**31)
    assert all(value < 0.01 for value in found.logprobs or ())
    if found.token_ids is not None and found.logprobs is not None:
        assert len(found.token_ids) == len(found.logprobs)


def test_requests_to_vllm_set_every_parameter_that_it_would_default() -> None:
    traits = ServerTraits("completions", "processed", True, None, "m")
    body = build_body(traits, REQUEST, SAMPLING)
    neutral = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    neutral |= {"presence_penalty": 0.0, "frequency_penalty": 0.0}
    assert body | neutral == body
    other = build_body(ServerTraits("chat", None, False, None, "m"), REQUEST, SAMPLING)
    assert not neutral.keys() & other.keys()
