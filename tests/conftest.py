"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real problems and traces; tests that need them are skipped where the folder is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data here")
    return folder


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """Golden numbers of the reward with their tiny models; skipped where the folder is absent."""
    folder = SHARED / "golden" / "rlt_reference"
    if not folder.is_dir():
        pytest.skip("no ../shared/golden here")
    return folder
