"""One stage of the kill tests: its configuration, and when it is killed.

Each stage has a file `tests/stages/STAGE/kill_case.py` with a function `make_case(folder)`. In the folder
are `problems.jsonl`, and the tiny models `teacher` and `student`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

STAGE_TESTS = Path(__file__).parents[1] / "stages"
QUESTIONS = 14


@dataclass(frozen=True)
class KillCase:
    """The stage is killed after so many commits of `table`, within `longest` seconds of each."""

    config: dict[str, object]
    table: str = "runs"
    commits: tuple[int, ...] = (1, 1)
    longest: float = 0.3
    commit_seconds: float = 0.0


def load_case(stage: str, folder: Path) -> KillCase:
    """Load the case of the stage whose recipe section is `stage`."""
    path = STAGE_TESTS / stage / "kill_case.py"
    spec = spec_from_file_location(f"kill_case_{stage}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    case = module.make_case(folder)
    assert isinstance(case, KillCase)
    return case
