"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Program, QuickProgram
from hypothesis import HealthCheck, settings
from tokenizer_models import TokenizerModels

# A law holds however slow the machine is that checks it.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real problems and traces; tests that need them are skipped where the folder is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data here")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Expected rewards of 12 cases with the tiny models that they were scored with; see its README."""
    return Path(__file__).with_name("golden")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny random Qwen2 model; see `tests/tiny_models.py`."""
    pytest.importorskip("transformers")
    from tiny_models import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tokenizer_models(tmp_path_factory: pytest.TempPathFactory) -> TokenizerModels:
    """Tiny models with published and with small tokenizers; the published are skipped where absent."""
    pytest.importorskip("transformers")
    return TokenizerModels(tmp_path_factory.mktemp("tokenizer-models"), SHARED)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The real command line, run in the test's own folder."""
    return Program(tmp_path)


@pytest.fixture
def quick(tmp_path: Path) -> QuickProgram:
    """The command line within this process, run in the test's own folder."""
    return QuickProgram(tmp_path)
