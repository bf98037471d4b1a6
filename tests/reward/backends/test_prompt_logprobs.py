"""Prompt log-probabilities in answers; the real server is in tests/engines/vllm/test_vllm_server.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pytest

from rlt_data.errors import ModelError, UsageError
from rlt_data.formats import load_format
from rlt_data.models import resolve_model
from rlt_data.models.identity import ModelIdentity
from rlt_data.reward.backends.base import BackendFailure
from rlt_data.reward.backends.cache import BackendCache
from rlt_data.reward.backends.openai import ServerBackend, read_prompt_logprobs
from rlt_data.reward.backends.opening import BACKENDS, BackendName, BackendSettings
from rlt_data.reward.scoring.loading import ModelCache
from rlt_data.settings import Settings
from rlt_data.stages.score import ScoreConfig
from rlt_data.stages.score.rows import ScoreKey
from rlt_data.stages.score.trace_groups import ScoreGroup


def answer(entries: Any) -> dict[str, Any]:
    return {"choices": [{"text": "x", "prompt_logprobs": entries}]}


def test_each_token_but_the_first_has_a_log_probability() -> None:
    entries = [
        None,
        {"7": {"logprob": -1.5, "rank": 2}, "9": {"logprob": -0.1, "rank": 1}},
        {"3": {"logprob": -2}},
    ]
    assert read_prompt_logprobs(answer(entries), [5, 7, 3]) == [-1.5, -2.0]


@pytest.mark.parametrize(
    "entries", [None, [None], [None, {"7": {"logprob": -1}}, None], [None, {"7": {}}, {"3": {"logprob": -2}}]]
)
def test_an_answer_that_omits_tokens_fails(entries: Any) -> None:
    found = read_prompt_logprobs(answer(entries), [5, 7, 3])
    assert isinstance(found, BackendFailure)
    assert found.reason == "invalid_answer"


def test_a_temperature_is_refused_before_the_server_is_contacted(tiny_model: Path) -> None:
    identity = resolve_model(str(tiny_model), role="student", settings=Settings())
    with pytest.raises(UsageError, match=r"temperature 1, not 0\.7") as caught:
        ServerBackend(identity, 0.7, options={"base_url": "http://127.0.0.1:9/v1"})
    assert "--backend vllm" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"backend": "vllm", "exact": True}, "whole distributions"),
        (
            {"backend": "openai", "base_url": "http://x/v1", "reward": {"estimator": "full"}},
            "own tokens only",
        ),
        ({"backend": "openai"}, "needs base_url"),
        ({"base_url": "http://x/v1"}, "the backend is torch"),
        ({"backend": "openai", "base_url": "http://x/v1", "noise_check": 3}, "noise check"),
        ({"backend": "openai", "base_url": "http://x/v1"}, "those of temperature 1, not 0.7"),
        (
            {
                "backend": "openai",
                "base_url": "http://x/v1",
                "students": ("x", "y"),
                "backend_options": {"served_model": "z"},
            },
            "several students",
        ),
        ({"backend": "vllm", "backend_options": {"dtype": "bfloat16"}}, "set dtype itself"),
    ],
)
def test_what_a_backend_cannot_do_is_refused_with_the_reason(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ScoreConfig(**{"students": ("x",), **options})


def test_every_backend_is_defined_once() -> None:
    assert tuple(BACKENDS) == get_args(BackendName)
    assert [name for name, entry in BACKENDS.items() if entry.open is None] == ["torch"]


def test_what_cannot_be_scored_is_refused_before_a_model_runs(tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "architectures": ["Gemma2ForCausalLM"]}))
    good, bad = (resolve_model(str(m), role="m", settings=Settings()) for m in (tiny_model, other))
    local = ModelCache(dtype="bfloat16", device="cpu")
    cache = BackendCache("vllm", local, BackendSettings(dtype="bfloat16", device="cpu"))
    format = load_format("stratos")
    for students, teacher in (([(bad, 0.7)], None), ([(good, 0.7)], (bad, 0.7))):
        with pytest.raises(ModelError, match="Gemma2ForCausalLM"):
            cache.open_scorer(format, students, teacher)
    assert cache.open_scorer(format, [(bad, 1.0), (good, 0.5)], None).notes == []
    notes = cache.open_scorer(format, [(good, 0.7)], None).notes
    assert "temperature 0.7 is divided into bfloat16 weights" in notes[0]


def test_options_that_change_a_model_are_part_of_its_scores() -> None:
    group = ScoreGroup("stratos", None, pl.lit(True))
    student = ModelIdentity("student", "x", "x", None)
    ids = []
    for options in ({}, {"max_num_seqs": 4}, {"quantization": "fp8"}):
        config = ScoreConfig(students=("x",), backend="vllm", backend_options=options)
        ids.append(ScoreKey(config, group, "float32", 0).make_id("t", student))
    assert ids[0] == ids[1] != ids[2]


def test_secrets_stay_out_of_the_configuration() -> None:
    with pytest.raises(UsageError, match="looks like a secret") as caught:
        ScoreConfig(students=("x",), backend_options={"api_key": "sk-secret"})
    assert "sk-secret" not in str(caught.value)
