"""Content hashes: they are the keys of rows in lakes that exist, so they may never change."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rlt_data.hashing import hash_content, hash_file

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def test_hashes_stay_what_they_were() -> None:
    assert hash_content("question", "What is 2 + 3?") == "08626f5cf7a2e538b2b1636106a514e0"
    assert hash_content({"b": 1, "a": [1.0, "1", None, "é\ud800"]}) == "d084d1c468b1465f78b304d5523b72b3"


def test_a_file_is_hashed_by_its_bytes_alone(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).write_bytes(b"rlt-data")
    assert hash_file(tmp_path / "one") == hash_file(tmp_path / "other") == "cafb0b8ee60a9e8d1ff2e217a97f8bfd"


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4))
def test_the_order_of_keys_does_not_count(values: dict) -> None:
    assert hash_content(values) == hash_content(dict(reversed(values.items())))


def test_values_that_only_look_alike_hash_apart() -> None:
    alike = [(1,), (1.0,), ("1",), (True,), ([1],), (1, None), ("1", "None"), ({"1": None},)]
    assert len({hash_content(*parts) for parts in alike}) == len(alike)
