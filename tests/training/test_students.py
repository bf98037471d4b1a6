"""Students of the reward: what quantised ones need is said."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from rlt_data.errors import MissingExtraError

pytest.importorskip("trl")


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_quantised_students_name_the_package_that_they_need(models: dict[str, str]) -> None:
    from rlt_data.training.students import load_student

    with pytest.raises(MissingExtraError, match="pip install bitsandbytes"):
        load_student(models["student"], 0.7, quantization="8bit")
