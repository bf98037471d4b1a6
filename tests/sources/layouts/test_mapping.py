"""Columns with other names are mapped, and an invalid mapping is refused."""

from __future__ import annotations

import pytest
from sources.layouts.public_rows import recognize

from rlt_data.errors import UsageError
from rlt_data.sources.layouts import rename_columns


@pytest.mark.parametrize(
    ("mapping", "layout", "message"),
    [
        ({"qestion": "prompt"}, None, "'qestion'"),
        ({"trace": "prompt"}, "aime", "aime does not read"),
        ({"question": "promt"}, None, "no column 'promt'"),
        ({"question": "prompt", "solution": "prompt"}, None, "mapped twice"),
    ],
)
def test_an_invalid_mapping_is_refused(mapping: dict[str, str], layout: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recognize({"prompt": "p", "response": "r"}, mapping=mapping, layout=layout)


def test_mapped_columns_displace_those_of_the_same_name() -> None:
    renamed = rename_columns({"question": "old", "prompt": "new", "x": 1}, {"question": "prompt"})
    assert renamed == {"question": "new", "question.original": "old", "x": 1}
    assert rename_columns({"a": 1}, {}) == {"a": 1}
