"""Make `lake_0_1`: what version 0.1 wrote, with a finished and an interrupted run of every stage.

It runs under commit 670cac9 alone, and stays here to show how the folder was made:

    python tests/compatibility/make_lake.py

The lake is made under the system's folder for temporary files, since it names the models by absolute paths,
and copied beside this file. A run is interrupted by SIGKILL, in a process of its own.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

from lake_0_1_cases import CASES, QUERIES, STAGES, Case
from lake_0_1_inputs import save_models, write_problems

import rlt_data.stages.run
from rlt_data.lake import Lake
from rlt_data.lake.fingerprint import SCHEME, compute_fingerprint
from rlt_data.lake.runs import list_packages

PLACE = Path(__file__).with_name("lake_0_1")
ATTEMPTS = 20
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "RLT_DATA_COMMIT_SECONDS": "0"}


def main() -> None:
    """Make the folder, or (with a stage and its configuration) run one stage in the working directory."""
    if len(sys.argv) > 1:
        run_stage(sys.argv[1], json.loads(sys.argv[2]))
        return
    work = Path(tempfile.gettempdir()) / "rlt-data-0.1"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    write_problems(work)
    save_models(work / "models")
    runs: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    for case in CASES:
        finished = run_whole(work, case.stage, case.finished, parts)
        for checkpoint in work.glob("training/*/checkpoint-*"):
            if (checkpoint.parent / "model").is_dir():
                shutil.rmtree(checkpoint)  # A finished training needs none, and they are half of the folder.
        interrupted = interrupt(work, case, parts)
        runs[case.stage] = {"finished": finished, "interrupted": interrupted}
        print(case.stage, interrupted["rows_at_cut"], interrupted["rows"])
    lake = Lake(work / "lake")
    about = {"version": "0.1.0", "commit": "670cac9", "packages": list_packages()}
    keys = {table.name: table.schema.key for table in lake.tables() if table.name != "runs"}
    write_json(work / "runs.json", {"about": about, "keys": keys, "stages": runs})
    write_json(work / "fingerprints.json", {"scheme": SCHEME, "runs": parts})
    answers = [{"query": query, "rows": ask(lake, query)} for query in QUERIES]
    write_json(work / "answers.json", answers)
    shutil.rmtree(PLACE, ignore_errors=True)
    shutil.copytree(work, PLACE)


def run_stage(stage: str, config: Mapping[str, Any]) -> Any:
    """Run a stage on the lake of the working directory."""
    module_name, function, config_class = STAGES[stage]
    module = importlib.import_module(module_name)
    return getattr(module, function)(Lake("lake"), getattr(module, config_class).model_validate(config))


def run_whole(work: Path, stage: str, config: Mapping[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """Run a stage to its end in `work`, and describe its run; `parts` takes what its fingerprint is of."""

    def record(stage: str, **options: Any) -> str:
        fingerprint = compute_fingerprint(stage, **options)
        parts[fingerprint] = {
            "stage": stage,
            "scheme_version": options["scheme_version"],
            "config": options["config"],
            "inputs": sorted([state.table, state.rows, state.digest] for state in options["inputs"]),
            "models": [[model.role, model.content_key] for model in options["models"]],
            "identity": options["identity"],
        }
        return fingerprint

    rlt_data.stages.run.compute_fingerprint = record
    with chdir(work):
        summary = run_stage(stage, config)
        assert summary.status == "finished", summary
        return {
            "config": config,
            "run_id": summary.run_id,
            "rows": describe_rows(Lake("lake"), summary.run_id),
        }


def interrupt(work: Path, case: Case, parts: dict[str, Any]) -> dict[str, Any]:
    """Kill a run in `work` during its work; a copy of `work` shows the result of an uninterrupted run."""
    before, whole = work.with_name(f"{work.name}-before"), work.with_name(f"{work.name}-whole")
    for copy in (before, whole):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(work, copy)
    recorded = run_whole(whole, case.stage, case.interrupted, parts)
    for _ in range(ATTEMPTS):
        kill_amid_work(work, case)
        lake = Lake(work / "lake")
        rows = describe_rows(lake, recorded["run_id"])
        if is_well_killed(work, case, lake, rows, recorded):
            shutil.rmtree(before)
            shutil.rmtree(whole)
            return {**recorded, "rows_at_cut": rows}
        shutil.rmtree(work)
        shutil.copytree(before, work)
    raise TimeoutError(f"{case.stage} was never killed amid its work")


def kill_amid_work(work: Path, case: Case) -> None:
    """Start the stage in a process of its own, and kill it when there are enough files."""
    wanted = len(list(work.glob(case.pattern))) + case.new_files
    process = subprocess.Popen(
        [sys.executable, __file__, case.stage, json.dumps(case.interrupted)],
        cwd=work,
        env={**os.environ, **ENVIRONMENT},
        start_new_session=True,
    )
    while process.poll() is None and len(list(work.glob(case.pattern))) < wanted:
        time.sleep(0.0005)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def is_well_killed(
    work: Path, case: Case, lake: Lake, rows: dict[str, Any], recorded: dict[str, Any]
) -> bool:
    """Whether the run was killed with rows committed, and left nothing half-written in the lake's logs."""
    known = {run.run_id: run.status for run in lake.runs()}
    if known.get(recorded["run_id"]) != "started" or list(work.glob("lake/**/*#*")):
        return False
    if case.stage == "export":
        return bool(list(work.glob(case.pattern)))
    if case.stage in ("sft", "grpo"):
        checkpoints = list(work.glob(f"training/{case.stage}-{recorded['run_id'][:12]}/checkpoint-*"))
        if len(checkpoints) != 1 or not (checkpoints[0] / "rlt_data_checkpoint.json").is_file():
            return False
    # A ranking is committed at once: it is killed between its rows and its end.
    return bool(rows) and (rows == recorded["rows"]) == (case.stage == "rank")


def describe_rows(lake: Lake, run_id: str) -> dict[str, Any]:
    """Count a run's rows by table, and digest their keys."""
    found = {}
    for table in lake.tables():
        if table.name != "runs":
            query = (
                f"SELECT {table.schema.key} AS key FROM {table.name} WHERE run_id = '{run_id}' ORDER BY key"
            )
            keys = lake.sql(query).column("key").to_pylist()
            if keys:
                found[table.name] = {
                    "rows": len(keys),
                    "keys": hashlib.md5(" ".join(keys).encode()).hexdigest(),
                }
    return found


def ask(lake: Lake, query: str) -> list[list[Any]]:
    """Run a query and return its rows as JSON values."""
    return [list(row.values()) for row in lake.sql(query).to_pylist()]


def write_json(path: Path, content: Any) -> None:
    """Write JSON that a person can read."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.update({name: ENVIRONMENT[name] for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE")})
    main()
