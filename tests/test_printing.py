"""Everything is printed through `rlt_data.terminal` and `rlt_data.console`: no other module prints."""

from __future__ import annotations

import ast
from pathlib import Path

from test_layering import ROOT, list_source_files

PRINTERS = {
    "rlt_data/terminal.py",
    "rlt_data/console.py",
    "cli/streams.py",  # It puts these in place of the interpreter's streams.
    # These answer their parent in JSON, through a pipe.
    "rlt_data/tasks/grading/child.py",
    "rlt_data/formats/template_child.py",
    "rlt_data/tasks/grading/code/launcher.py",  # In the sandbox.
}
# A `Console` of Rich can be made in rlt_data/console.py only; what prints on it is no matter.
CALLS = {"print", "typer.echo", "typer.secho", "Console", "warnings.warn"}
STREAMS = {"sys.stdout.write", "sys.stderr.write", "sys.stdout.buffer", "sys.stderr.buffer"}


def find_printing(path: Path) -> list[str]:
    """Find where a module prints by itself."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = (
            ast.unparse(node.func if isinstance(node, ast.Call) else node) if hasattr(node, "lineno") else ""
        )
        if name in (CALLS if isinstance(node, ast.Call) else STREAMS):
            found.append(f"{path.relative_to(ROOT)}:{node.lineno} uses {name}")
    return found


def test_no_module_prints_by_itself():
    others = [path for path in list_source_files() if path.relative_to(ROOT).as_posix() not in PRINTERS]
    assert [line for path in others for line in find_printing(path)] == []


def test_the_search_finds_what_it_looks_for():
    assert find_printing(ROOT / "rlt_data/terminal.py")
    assert find_printing(ROOT / "cli/streams.py")
