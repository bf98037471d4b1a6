"""Laws of a step: its loss and update depend on its examples, not on batches, packing or processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlt_data.errors import InputError, StageStoppedError, UsageError
from rlt_data.formats import load_format
from rlt_data.models import load_tokenizer, resolve_model
from rlt_data.training.sft.examples import IGNORED, Explained, build_student_examples
from rlt_data.training.sft.sft_trainer import run_sft_trainer
from rlt_data.training.sft.tokenized import TokenizedExamples

pytest.importorskip("trl")

FORMAT = load_format("stratos")
# Above the longest of the examples, and below three of the shortest.
BUDGET = 120


def build_examples(tokenizer: Any, count: int) -> TokenizedExamples:
    """Examples of very different lengths: a wrong mean over batches shows."""
    rows = [
        Explained(f"{i % 9} + 1 =", f"The answer is {i % 9 + 1}.", "First 1 + 2 = 3." * (1 + i % 4))
        for i in range(count)
    ]
    return TokenizedExamples.collect(build_student_examples(FORMAT, tokenizer, rows))


@pytest.fixture(scope="module")
def examples(tokenizer: Any) -> TokenizedExamples:
    return build_examples(tokenizer, 13)


def train(
    models: dict[str, str],
    examples: TokenizedExamples,
    folder: Path,
    *,
    pack_tokens: int | None = None,
    resume_from: Path | None = None,
    on_built: Any = None,
    **options: Any,
) -> tuple[dict[str, np.ndarray], dict[int, dict[str, float]]]:
    """Train in this process; returns the weights, and what was logged by step."""
    trainer = run_sft_trainer(
        models["student"],
        load_tokenizer(resolve_model(models["student"], role="student")),
        examples,
        examples.make_packed_dataset(pack_tokens) if pack_tokens else None,
        options={
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            # Plain gradient descent: AdamW would turn the smallest difference into a whole step.
            "optim": "sgd",
            "learning_rate": 0.5,
            "lr_scheduler_type": "constant",
            "num_train_epochs": 2,
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "save_strategy": "no",
            "seed": 3,
            "model_init_kwargs": {"dtype": "float32", "local_files_only": True},
            **options,
        },
        output_dir=folder,
        resume_from=resume_from,
        on_built=on_built,
    )
    weights = {name: value.detach().numpy().copy() for name, value in trainer.model.named_parameters()}
    logged = {entry["step"]: entry for entry in trainer.state.log_history if "loss" in entry}
    return weights, logged


def assert_same(one: tuple[Any, Any], other: tuple[Any, Any], *, figures: tuple[str, ...]) -> None:
    (weights, logged), (other_weights, other_logged) = one, other
    assert logged.keys() == other_logged.keys()
    for step, entry in logged.items():
        for name in figures:
            assert float(entry[name]) == pytest.approx(float(other_logged[step][name]), rel=2e-5, abs=1e-6), (
                step,
                name,
            )
    for name, value in weights.items():
        np.testing.assert_allclose(value, other_weights[name], atol=2e-6, rtol=0, err_msg=name)


@pytest.fixture(scope="module")
def whole(models: dict[str, str], examples: TokenizedExamples, tmp_path_factory: Any) -> Any:
    """Batches of 6 at once: 3 steps an epoch, the last of one example."""
    found = train(models, examples, tmp_path_factory.mktemp("whole"), per_device_train_batch_size=6)
    start, _ = train(models, examples, tmp_path_factory.mktemp("start"), learning_rate=0.0)
    assert any(np.abs(found[0][name] - start[name]).max() > 1e-3 for name in start), "it learned something"
    assert len(found[1]) == 6
    return found


@pytest.mark.parametrize(("size", "accumulation"), [(3, 2), (2, 3), (1, 6)])
@pytest.mark.parametrize("padding_free", [False, True])
def test_a_step_does_not_depend_on_how_it_is_split(
    models: dict[str, str],
    examples: TokenizedExamples,
    whole: Any,
    tmp_path: Path,
    size: int,
    accumulation: int,
    padding_free: bool,
) -> None:
    """transformers#34191: a mean of means weighs the tokens of small batches more."""
    split = train(
        models,
        examples,
        tmp_path,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulation,
        padding_free=padding_free,
    )
    assert_same(whole, split, figures=("loss", "num_tokens", "learning_rate"))


@settings(max_examples=8)
@given(
    count=st.integers(2, 12),
    size=st.integers(1, 4),
    budget=st.integers(BUDGET, 400),
    attention=st.sampled_from(["sdpa", "eager"]),
    padding_free=st.booleans(),
)
def test_a_packed_batch_has_the_loss_and_the_gradients_of_its_examples(
    models: dict[str, str],
    tokenizer: Any,
    tmp_path_factory: Any,
    count: int,
    size: int,
    budget: int,
    attention: str,
    padding_free: bool,
) -> None:
    """All examples are one step, so that the packed and the unpacked one have the same examples."""
    examples = build_examples(tokenizer, count)
    folder = tmp_path_factory.mktemp("packing")
    rows = len(examples.make_packed_dataset(budget))
    one_step = {"num_train_epochs": 2, "learning_rate": 0.1}

    def set_attention(trainer: Any) -> None:
        trainer.model.set_attn_implementation(attention)

    plain = train(
        models, examples, folder, per_device_train_batch_size=count, on_built=set_attention, **one_step
    )
    packed = train(
        models,
        examples,
        folder,
        pack_tokens=budget,
        packing=True,
        padding_free=padding_free,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=-(-rows // size),
        on_built=set_attention,
        **one_step,
    )
    assert len(plain[1]) == 2
    assert_same(plain, packed, figures=("loss", "num_tokens"))


def test_packing_loses_no_token_and_splits_no_example(tokenizer: Any) -> None:
    examples = build_examples(tokenizer, 30)
    packed = examples.make_packed_dataset(300)
    assert len(packed) < 30
    texts = []
    for row in packed:
        assert sum(row["seq_lengths"]) == len(row["input_ids"]) <= 300
        ends = np.cumsum(row["seq_lengths"])
        for end, length in zip(ends, row["seq_lengths"], strict=True):
            texts.append((row["input_ids"][end - length : end], row["labels"][end - length : end]))
    expected = [tuple(part.tolist() for part in examples.select(i)) for i in range(30)]
    assert sorted(texts) == sorted(expected)


def test_packing_that_would_truncate_is_refused(tokenizer: Any) -> None:
    """TRL's bfd packing discards what exceeds the length, without a word."""
    examples = build_examples(tokenizer, 6)
    with pytest.raises(StageStoppedError, match="truncates"):
        examples.make_packed_dataset(int(examples.lengths.max()) - 1)


@pytest.mark.parametrize("option", [{"padding_free": True}, {"packing": True, "pack_tokens": 400}])
def test_packed_examples_that_attend_to_each_other_are_refused(
    models: dict[str, str], examples: TokenizedExamples, tmp_path: Path, option: dict[str, Any]
) -> None:
    """An attention that knows causality alone: the loss looks healthy, and is another one."""
    import torch
    from transformers import AttentionInterface

    def attend_causally(
        module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: Any = None, **_: Any
    ) -> Any:
        groups = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        found = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=query.shape[2] > 1, scale=scaling
        )
        return found.transpose(1, 2).contiguous(), None

    AttentionInterface.register("causal_alone", attend_causally)

    def set_attention(trainer: Any) -> None:
        trainer.model.set_attn_implementation("causal_alone")

    with pytest.raises(UsageError, match="attend to each other") as refused:
        train(models, examples, tmp_path, on_built=set_attention, **option)
    assert "causal_alone" in str(refused.value)


def test_padding_with_labels_is_refused(
    models: dict[str, str], examples: TokenizedExamples, tmp_path: Path
) -> None:
    """A padding token that is the end token, in labels that a collator makes of tokens: never to stop."""
    import trl.trainer.sft_trainer as module

    class ByToken(module.DataCollatorForLanguageModeling):
        """What many collators do: padding is where the padding token is."""

        def torch_call(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
            batch = super().torch_call(rows)
            batch["labels"][batch["input_ids"] == rows[0]["input_ids"][-1]] = IGNORED
            return batch

    real = module.DataCollatorForLanguageModeling
    module.DataCollatorForLanguageModeling = ByToken
    try:
        with pytest.raises(InputError, match=r"padding must have no label, and the end token one") as refused:
            train(models, examples, tmp_path)
    finally:
        module.DataCollatorForLanguageModeling = real
    assert "<|im_end|>" in str(refused.value)


def test_a_model_whose_padding_token_is_its_end_token_learns_to_stop(
    models: dict[str, str], examples: TokenizedExamples, tmp_path: Path
) -> None:
    labels = []

    def watch(trainer: Any) -> None:
        trainer.processing_class.pad_token = trainer.processing_class.eos_token
        trainer.data_collator.pad_token_id = trainer.processing_class.pad_token_id
        batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
        end = trainer.processing_class.eos_token_id
        assert (batch["input_ids"] == end).sum() > 4 * 3, "of turns, and as padding"
        labels.extend(int((row == end).sum()) for row in batch["labels"])

    train(models, examples, tmp_path, on_built=watch, max_steps=1)
    assert labels == [1] * 4
