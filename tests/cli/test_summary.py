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
        ({"seconds": 1.2126092, "peak_bytes": 933748736}, "seconds 1.213, peak bytes 933,748,736"),
        (
            {"reward": {"mean": 0.5}, "rows": 2, "names": ["a", "b"]},
            "reward (mean 0.5), rows 2, names (a, b)",
        ),
        ({}, ""),
        ({"data/one.parquet": "0" * 32, "README.md": "f" * 32}, "data/one.parquet, README.md"),
    ],
)
def test_a_figure_is_written_as_people_read_it(value: object, shown: str) -> None:
    assert format_figure(value) == shown
