"""The table of engines: every entry is a choice, has a help text, and can be opened."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from rlt_data.engines import ENGINE_HELP, EngineName, open_engine
from rlt_data.engines.opening import ENGINES, EngineEntry
from rlt_data.errors import UsageError
from rlt_data.models import resolve_model
from rlt_data.settings import Settings
from rlt_data.stages.generate.config import GenerateConfig

ENGINE = """
class EchoEngine:
    name = "echo"

    def __init__(self, identity, options):
        self.options = options
"""


def test_choices_and_help_follow_from_the_table() -> None:
    assert get_args(EngineName) == ("auto", *ENGINES)
    assert GenerateConfig.model_fields["engine"].annotation == EngineName
    for name, entry in ENGINES.items():
        assert f"{name}: {entry.help}" in ENGINE_HELP
    assert ENGINE_HELP in str(GenerateConfig.model_fields["engine"].description)


def test_every_entry_names_a_class_with_the_methods_of_an_engine() -> None:
    for name, entry in ENGINES.items():
        for package in entry.packages:
            pytest.importorskip(package)
        engine_class = getattr(importlib.import_module(entry.module), entry.class_name)
        assert engine_class.name == name
        assert {"notes", "figures", "generate", "close"} <= set(dir(engine_class))


def test_an_entry_is_all_that_an_engine_needs_to_be_opened(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "echo_engine.py").write_text(ENGINE)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EngineEntry("echo_engine", "EchoEngine", help="repeats the prompt", extra="models")
    monkeypatch.setitem(ENGINES, "echo", entry)
    identity = resolve_model(str(tiny_model), role="teacher", settings=Settings())
    assert open_engine("echo", identity).name == "echo"


def test_an_unknown_engine_is_refused_with_the_nearest_one(tiny_model: Path) -> None:
    identity = resolve_model(str(tiny_model), role="teacher", settings=Settings())
    with pytest.raises(UsageError, match="unknown engine 'vlm'") as caught:
        open_engine("vlm", identity)
    assert caught.value.remedy == "did you mean 'vllm'?"


def test_the_table_imports_nothing_heavy() -> None:
    script = (
        "import sys; from rlt_data.engines.opening import ENGINES\n"
        "print(sorted({'torch', 'transformers', 'vllm', 'httpx', 'psutil'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
