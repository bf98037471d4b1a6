"""What is installed: every package listed, nothing heavy at import, one place for tested versions."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "trl", "vllm", "ray", "datasets", "accelerate", "peft")


def read_pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def list_modules_after(code: str) -> set[str]:
    """Run `code` in a fresh interpreter and list the top-level modules that it left imported."""
    program = (
        f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_every_package_folder_is_listed_for_installation():
    listed = set(read_pyproject()["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts).replace("cli", "rlt_data_cli", 1)
        for folder in ("rlt_data", "cli")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert listed == {*found, "rlt_data_recipes"}


def test_nothing_named_plain_cli_is_installed():
    setuptools = read_pyproject()["tool"]["setuptools"]
    assert "cli" not in setuptools["packages"]
    assert setuptools["package-dir"]["rlt_data_cli"] == "cli"


def test_importing_the_package_imports_nothing_heavy():
    assert not list_modules_after("import rlt_data") & {*HEAVY, "polars", "duckdb", "pydantic", "rich"}


@pytest.mark.parametrize(
    "module",
    ["rlt_data.stages", "rlt_data.recipe", "rlt_data.formats", "rlt_data.models", "rlt_data.sources"],
)
def test_light_packages_import_nothing_heavy(module: str):
    folder = ROOT / module.replace(".", "/")
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(folder.rglob("*.py"))
    ]
    assert not list_modules_after("\n".join(f"import {name}" for name in names)) & set(HEAVY)


def test_group_help_imports_neither_commands_nor_their_libraries():
    code = "from rlt_data_cli.main import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    modules = list_modules_after(code)
    assert not modules & {
        *HEAVY,
        "pydantic",
        "polars",
        "duckdb",
        "pyarrow",
        "deltalake",
        "rich",
        "prompt_toolkit",
    }


def test_tested_versions_are_those_installed_here():
    from rlt_data_cli.doctor import find_version, read_tested_versions

    tested = read_tested_versions()
    installed = {
        name: version.split("+")[0] for name in tested if (version := find_version(name)) is not None
    }
    assert installed == {name: version for name, version in tested.items() if name in installed}
    assert {"torch", "transformers", "trl", "deltalake", "duckdb", "polars", "pyarrow"} <= set(installed)


def test_every_extra_that_an_error_names_exists():
    pattern = r"""require_module\([^)]*, ["'](\w+)["']\)|rlt-data\[(\w+)\]"""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "rlt_data").rglob("*.py")]
    named = {first or second for text in texts for first, second in re.findall(pattern, text)}
    assert {"models", "vllm"} <= named <= set(read_pyproject()["project"]["optional-dependencies"])


def test_declared_ranges_hold_the_tested_versions():
    from packaging.requirements import Requirement

    from rlt_data_cli.doctor import read_tested_versions

    project = read_pyproject()["project"]
    tested = read_tested_versions()
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    requirements = [Requirement(line) for line in lines if not line.startswith("rlt-data[")]
    for requirement in requirements:
        assert tested[requirement.name] in requirement.specifier, requirement.name
