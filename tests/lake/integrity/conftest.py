"""A whole lake, and a copy of it to damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lake.integrity.corrupted_lake import make_rows

from rlt_data.lake import Lake


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake to which nothing has happened."""
    folder = tmp_path_factory.mktemp("whole") / "lake"
    make_rows(Lake(folder))
    return folder


@pytest.fixture
def damaged(whole: Path, tmp_path: Path) -> Path:
    """A copy of the lake, which a test damages."""
    shutil.copytree(whole, tmp_path / "lake")
    return tmp_path / "lake"
