"""What is installed: every package listed, nothing heavy at import, tested versions listed once."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def test_a_wheel_has_every_package_and_nothing_named_plain_cli(tmp_path: Path):
    # Built from a copy: setuptools leaves a folder `build` behind, and puts what is left in it into wheels.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("rlt_data", "cli", "recipes"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        installed = {name for name in wheel.namelist() if not name.startswith("rlt_data-")}
    names = {"rlt_data": "rlt_data", "cli": "rlt_data_cli", "recipes": "rlt_data_recipes"}
    wanted = {
        f"{name}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, name in names.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".toml", ".j2", ".txt", ".typed"}
    }
    assert installed == wanted


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
    from rlt_data_cli.commands.doctor import find_version, read_tested_versions

    tested = read_tested_versions()
    installed = {
        name: version.split("+")[0] for name in tested if (version := find_version(name)) is not None
    }
    assert installed == {name: version for name, version in tested.items() if name in installed}
    assert {"torch", "transformers", "trl", "deltalake", "duckdb", "polars", "pyarrow"} <= set(installed)


def list_installed(extra: str) -> set[str]:
    """List the packages that an extra installs, with what they need themselves."""
    project = read_pyproject()["project"]
    waiting = [*project["dependencies"], *project["optional-dependencies"][extra]]
    found: set[str] = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name == "rlt-data":
            waiting += [
                line for other in requirement.extras for line in project["optional-dependencies"][other]
            ]
        elif name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(name)
            with suppress(metadata.PackageNotFoundError):
                waiting += metadata.requires(name) or []
    return found


@pytest.mark.skipif(find_spec("trl") is None, reason="what packages need is read from those installed")
def test_extras_install_the_modules_for_which_errors_name_them():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "rlt_data").rglob("*.py")]
    required = {
        pair for text in texts for pair in re.findall(r'require_module\(\s*"(\w+)[^"]*",\s*"(\w+)"', text)
    }
    assert {"models", "train", "verify"} <= {extra for _, extra in required}
    installed = {extra: list_installed(extra) for _, extra in required}
    packages = metadata.packages_distributions()
    lacking = [
        (module, extra)
        for module, extra in required
        if not installed[extra] & {canonicalize_name(name) for name in packages.get(module, [module])}
    ]
    assert lacking == []
    named = {extra for text in texts for extra in re.findall(r"rlt-data\[(\w+)\]", text)}
    assert {"vllm"} <= named <= set(read_pyproject()["project"]["optional-dependencies"])


def test_declared_ranges_hold_the_tested_versions():
    from rlt_data_cli.commands.doctor import read_tested_versions

    project = read_pyproject()["project"]
    tested = read_tested_versions()
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    requirements = [Requirement(line) for line in lines if not line.startswith("rlt-data[")]
    for requirement in requirements:
        assert tested[requirement.name] in requirement.specifier, requirement.name
