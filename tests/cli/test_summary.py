"""Figures as a summary shows them."""

from __future__ import annotations

import pytest

from rlt_data_cli.summary import format_figure


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1234567, "1,234,567"),
        (True, "true"),
        (None, "none"),
        (0.123456, "0.1235"),
        (-12345.6, "-12,346"),
        (-0.0, "0"),
        ("as it is", "as it is"),
        ({"a": 1}, '{"a": 1}'),
        ({"data/one.parquet": "0" * 32, "README.md": "f" * 32}, "data/one.parquet, README.md"),
    ],
)
def test_a_figure_is_written_as_people_read_it(value: object, shown: str) -> None:
    assert format_figure(value) == shown
