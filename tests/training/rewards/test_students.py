"""Students of the reward: quantized ones name the package that they need, and none are sharded."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from rlt_data.errors import MissingExtraError

pytest.importorskip("trl")


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_quantized_students_name_the_package_that_they_need(models: dict[str, str]) -> None:
    from rlt_data.training.rewards.students import load_student

    with pytest.raises(MissingExtraError, match="pip install bitsandbytes"):
        load_student(models["student"], 0.7, quantization="8bit")


def test_a_student_is_whole_while_a_training_spreads_its_weights(models: dict[str, str]) -> None:
    from transformers.integrations import deepspeed

    from rlt_data.training.rewards.students import load_student

    class SpreadAll:
        """What a training under ZeRO-3 leaves in transformers, which then shards all models that it loads."""

        def is_zero3(self) -> bool:
            return True

    spread = SpreadAll()
    deepspeed.set_hf_deepspeed_config(spread)
    try:
        student = load_student(models["student"], 0.7, dtype="float32", device="cpu")
        assert deepspeed.is_deepspeed_zero3_enabled(), "the training is as it was"
    finally:
        deepspeed.unset_hf_deepspeed_config()
    assert all(parameter.numel() for parameter in student.model.parameters())
