"""Imports run one way: each layer may import itself and the layers below it, and nothing above."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the top down. Packages of one layer may import one another.
LAYERS = (
    ("cli",),
    ("rlt_data.recipe",),
    ("rlt_data.stages", "rlt_data.training"),
    (
        "rlt_data.reward",
        "rlt_data.engines",
        "rlt_data.tasks",
        "rlt_data.formats",
        "rlt_data.sources",
        "rlt_data.models",
    ),
    ("rlt_data.lake",),
    (
        "rlt_data.atomic_files",
        "rlt_data.bounds",
        "rlt_data.console",
        "rlt_data.schemas",
        "rlt_data.errors",
        "rlt_data.hashing",
        "rlt_data.progress",
        "rlt_data.settings",
        "rlt_data.suggestions",
        "rlt_data.terminal",
        "rlt_data.toml",
        "rlt_data.validation",
    ),
)


def find_layer(module: str) -> int | None:
    """Find the layer of a module, 0 on top; None for one outside this program and for `rlt_data` itself."""
    module = module.replace("rlt_data_cli", "cli", 1)
    for depth, packages in enumerate(LAYERS):
        if any(module == package or module.startswith(f"{package}.") for package in packages):
            return depth
    return None


def list_source_files() -> list[Path]:
    return sorted(path for folder in ("rlt_data", "cli") for path in (ROOT / folder).rglob("*.py"))


def name_module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def iterate_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and module of every import, also those inside functions."""
    module = name_module(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def test_every_module_belongs_to_a_layer():
    homeless = [name_module(path) for path in list_source_files() if find_layer(name_module(path)) is None]
    assert homeless == ["rlt_data"]


@pytest.mark.parametrize("path", list_source_files(), ids=name_module)
def test_imports_run_one_way(path: Path):
    layer = find_layer(name_module(path))
    if layer is None:  # rlt_data/__init__.py gives out `Lake`
        return
    upward = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for line, module in iterate_imports(path)
        if (depth := find_layer(module)) is not None and depth < layer
    ]
    assert upward == []


def find_module(name: str, modules: Container[str]) -> str | None:
    """Find the module that holds a dotted name: the name itself or its longest prefix."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def test_no_modules_import_one_another():
    """Imports inside functions and under TYPE_CHECKING count too: two such modules are one."""
    paths = {name_module(path): path for path in list_source_files()}
    imports = {
        module: {
            found
            for _, name in iterate_imports(path)
            if (found := find_module(name, paths)) and found != module
        }
        for module, path in paths.items()
    }
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail("a circle of imports: " + " is imported by ".join(error.args[1]))


def test_the_walk_sees_relative_and_nested_imports():
    modules = {module for _, module in iterate_imports(ROOT / "cli" / "main.py")}
    assert {"cli.lazy.LazyGroup", "cli.failures.report_failure"} <= modules
