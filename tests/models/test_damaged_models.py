"""A model that cannot work is recognized when it is opened, and the error names what is wrong with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlt_data.engines import EngineOptions, FailedRequest, GenerationRequest, SamplingParameters, open_engine
from rlt_data.errors import ModelError
from rlt_data.formats import load_built_in
from rlt_data.models import ModelIdentity, load_model, load_tokenizer, resolve_model
from rlt_data.reward.scoring.texts import FailedText, ScoreRequest, build_student_texts
from rlt_data.settings import Settings


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "folder" / "model")


def identify(model: Path) -> ModelIdentity:
    return resolve_model(str(model), role="teacher", settings=Settings())


def change_weights(model: Path, name: str, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    tensors[name] = change(tensors[name])
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def shrink_embeddings(model: Path, size: int) -> None:
    change_weights(model, "model.embed_tokens.weight", lambda weight: weight[:size].clone())
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": size}), encoding="utf-8")


def test_a_tokenizer_without_a_vocabulary(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no vocabulary, because the model has no tokenizer\.json"):
        load_tokenizer(identify(model))
    file = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}
    (model / "tokenizer.json").write_text(json.dumps(file), encoding="utf-8")
    with pytest.raises(ModelError, match="has no vocabulary: it turns text into no tokens"):
        load_tokenizer(identify(model))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rms_norm_eps", "x", 'rms_norm_eps should be a number, found "x"'),
        ("rms_norm_eps", float("nan"), "rms_norm_eps is not a finite number"),
        ("rope_theta", float("inf"), "rope_theta is not a finite number"),
        (
            "rope_parameters",
            {"rope_theta": float("inf")},
            "rope_parameters.rope_theta is not a finite number",
        ),
        ("eos_token_id", 10**9, "eos_token_id should be a token from 0 to"),
        ("eos_token_id", [0, -7], "eos_token_id should be a token from 0 to"),
        ("eos_token_id", "x", "eos_token_id should be the number of a token"),
    ],
)
def test_a_damaged_number_of_the_configuration(model: Path, key: str, value: Any, message: str) -> None:
    load_tokenizer(identify(model))
    file = model / "config.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text(encoding="utf-8")), key: value}), encoding="utf-8"
    )
    with pytest.raises(ModelError) as raised:
        load_tokenizer(identify(model))
    assert message in raised.value.what
    assert raised.value.where == str(file)


@pytest.mark.parametrize("missing", [1, 3, 100])
def test_tokens_beyond_the_embeddings(model: Path, missing: int) -> None:
    """Among the last are `</think>`, the tokens of the template, and words."""
    size = len(load_tokenizer(identify(model)))
    shrink_embeddings(model, size - missing)
    if missing == 1:
        load_tokenizer(identify(model))
        return
    with pytest.raises(ModelError, match=rf"the model has {size - missing} embeddings"):
        load_tokenizer(identify(model))


def test_a_text_with_a_token_beyond_the_embeddings_is_rejected_by_name(model: Path) -> None:
    size = len(load_tokenizer(identify(model)))
    shrink_embeddings(model, size - 1)
    identity = identify(model)
    engine = open_engine("transformers", identity, EngineOptions(device="cpu"))
    requests = [GenerationRequest(key, key, 0) for key in ("a text", "a </think> text")]
    answers = {a.key: a for a in engine.generate(requests, SamplingParameters(1.0, 1.0, 0, 4))}
    failed = answers.pop("a </think> text")
    assert isinstance(failed, FailedRequest)
    assert failed.reason == "token_without_embedding"
    assert "'</think>'" in failed.detail
    assert not isinstance(answers["a text"], FailedRequest)
    scored = build_student_texts(
        load_built_in("stratos"),
        load_tokenizer(identity),
        [ScoreRequest("good", "Q", "7", "T"), ScoreRequest("bad", "Q </think>", "7", "T")],
    )
    assert [isinstance(text, FailedText) and text.reason for text in scored] == [
        False,
        "token_without_embedding",
    ]


def test_a_tokenizer_that_its_configuration_looks_for_elsewhere(model: Path) -> None:
    (model / "tokenizer.json").rename(model.parent / "tokenizer.4.0.0.json")
    file = model / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["fast_tokenizer_files"] = ["../tokenizer.4.0.0.json"]
    file.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="outside the model's directory"):
        load_tokenizer(identify(model))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_weights_that_are_not_numbers(model: Path, value: str) -> None:
    def damage(weight: Any) -> Any:
        weight[3, 2] = float(value)
        return weight

    name = "model.layers.1.mlp.up_proj.weight"
    change_weights(model, name, damage)
    with pytest.raises(
        ModelError, match=r"1 of 2048 values of model\.layers\.1\.mlp\.up_proj\.weight are NaN"
    ):
        load_model(identify(model), device="cpu")


def test_weights_too_large_for_float16(model: Path) -> None:
    change_weights(model, "model.layers.0.mlp.up_proj.weight", lambda weight: weight + 1e6)
    load_model(identify(model), device="cpu")
    with pytest.raises(ModelError, match="NaN or infinite") as caught:
        load_model(identify(model), device="cpu", dtype="float16")
    assert "bfloat16" in str(caught.value.remedy)


def load_all(model: Path) -> None:
    identity = identify(model)
    load_tokenizer(identity)
    load_model(identity, device="cpu")


NESTED = "[" * 50_000 + "]" * 50_000
DIGITS = "9" * 5_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", -1),
        ("num_hidden_layers", 3),
        ("num_hidden_layers", "many"),
        ("num_hidden_layers", [2]),
        ("vocab_size", 10**30),
        ("vocab_size", 1e308),
        ("hidden_size", 0),
        ("hidden_size", None),
        ("head_dim", 10**9),
        ("max_position_embeddings", 10**20),
        ("layer_types", ["unknown"]),
        ("layer_types", 7),
        ("rope_parameters", "x"),
        ("hidden_act", "unknown"),
        ("model_type", "unknown"),
        ("model_type", 3),
        ("architectures", [3]),
        ("text_config", {"num_hidden_layers": 10**9}),
        ("eos_token_id", "x"),
    ],
)
def test_a_configuration_that_is_wrong_is_an_error_of_the_model(model: Path, name: str, value: Any) -> None:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**config, name: value}), encoding="utf-8")
    with pytest.raises(ModelError) as raised:
        load_all(model)
    assert raised.value.where is not None
    assert str(model) in raised.value.where
    assert len(raised.value.what) < 5_000


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "content", [NESTED, "[]", "null", "", "{", "\x00", '{"a": ' + DIGITS + "}", '{"a": ' + NESTED]
)
def test_a_file_that_is_not_what_its_name_says(model: Path, file: str, content: str) -> None:
    (model / file).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError) as raised:
        load_all(model)
    assert "sys.set_int" not in raised.value.what


@pytest.mark.parametrize(
    "content", ["{}", "[]", "null", "", '{"added_tokens": []}', '{"model": {}}', NESTED, "\x00"]
)
def test_a_file_that_is_not_a_tokenizer(model: Path, content: str) -> None:
    (model / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match="the file does not define a tokenizer") as raised:
        load_tokenizer(identify(model))
    assert raised.value.where == str(model / "tokenizer.json")
    assert raised.value.remedy is not None
    assert "copy tokenizer.json" in raised.value.remedy
