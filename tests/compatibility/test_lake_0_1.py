"""A lake that version 0.1 wrote is read and extended as by that version.

`lake_0_1/` holds the lake with its models and sources, a finished and an interrupted run of every stage
(`runs.json`), SQL with its answers (`answers.json`), and what each fingerprint was made of
(`fingerprints.json`). Configurations are stored as that version wrote them: names of modules, functions and
fields that are others today are mapped here, and nowhere else.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rlt_data import Lake
from rlt_data.hashing import hash_content

# Where each stage is today: its module, its function and its configuration.
STAGES = {
    "ingest": ("rlt_data.stages.ingest", "ingest", "IngestConfig"),
    "generate": ("rlt_data.stages.generate", "generate", "GenerateConfig"),
    "score": ("rlt_data.stages.score", "score", "ScoreConfig"),
    "reward": ("rlt_data.stages.reward", "reward", "RewardConfig"),
    "rank": ("rlt_data.stages.rank", "rank", "RankConfig"),
    "substitute": ("rlt_data.stages.substitute", "substitute", "SubstituteConfig"),
    "export": ("rlt_data.stages.export", "export", "ExportConfig"),
    "sft": ("rlt_data.training.sft.stage", "train_sft", "SftConfig"),
    "grpo": ("rlt_data.training.rl.stage", "train_grpo", "GrpoConfig"),
}
# Fields of a stage's configuration by their names in version 0.1, and where they are today.
REWARD = ("estimator", "alpha", "lambda_kl", "penalty", "clip_logprob", "clip_kl")
RENAMED: dict[str, dict[str, str]] = {
    "generate": {"overlong": "over_context"},
    "rank": {name: f"reward.{name}" for name in REWARD},
    "substitute": {"context": "student_context"},
    "sft": {"teacher": "model"},
    "grpo": {
        "teacher": "model",
        **{f"rlt.{name}": f"reward.{name}" for name in REWARD},
        "reward": "reward.type",
        "combine": "reward.combine",
        "shuffle_rewards": "reward.shuffle",
        "teacher_side": "teacher_logprobs",
    },
}

TRAININGS = ("sft", "grpo")
LIBRARIES = {"generate": "transformers", "score": "transformers", "substitute": "transformers"}
LIBRARIES |= dict.fromkeys(TRAININGS, "trl")
FOLDER = Path(__file__).with_name("lake_0_1")
RUNS: dict[str, Any] = json.loads((FOLDER / "runs.json").read_text(encoding="utf-8"))
ANSWERS: list[dict[str, Any]] = json.loads((FOLDER / "answers.json").read_text(encoding="utf-8"))
KEYS: dict[str, str] = RUNS["keys"]


def run_stage(stage: str, config: dict[str, Any]) -> Any:
    """Run a stage, configured as in version 0.1, on the lake of the working directory."""
    if stage == "export" and not Path("/proc/self/cwd").is_dir():
        pytest.skip(
            "an export's absolute path is part of its identity, and no such path moves with the folder"
        )
    pytest.importorskip(LIBRARIES.get(stage, "rlt_data"))
    module_name, function, config_class = STAGES[stage]
    module = importlib.import_module(module_name)
    fields = rename_fields(config, RENAMED.get(stage, {}))
    return getattr(module, function)(Lake("lake"), getattr(module, config_class).model_validate(fields))


def rename_fields(config: dict[str, Any], renamed: dict[str, str]) -> dict[str, Any]:
    """Move the fields of a configuration of version 0.1 to their names of today."""
    fields: dict[str, Any] = {}
    for name, value in config.items():
        inner = value if isinstance(value, dict) and f"{name}.{next(iter(value), '')}" in renamed else None
        pairs = {f"{name}.{key}": part for key, part in inner.items()} if inner is not None else {name: value}
        for old, part in pairs.items():
            *above, last = renamed.get(old, old).split(".")
            table = fields
            for step in above:
                table = table.setdefault(step, {})
            table[last] = part
    return fields


def read_rows(lake: Lake) -> dict[tuple[str, str], dict[str, Any]]:
    """Read every row of every table but `runs`, by table and key. A repeated key is an error."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for table, key in KEYS.items():
        for row in lake.sql(f"SELECT * FROM {table}").to_pylist():
            assert (table, row[key]) not in found, "a key is repeated"
            found[table, row[key]] = row
    return found


def describe_rows(rows: dict[tuple[str, str], dict[str, Any]], run_id: str) -> dict[str, Any]:
    """Count a run's rows by table, and digest their keys, as `runs.json` has them."""
    described = {}
    for name in KEYS:
        keys = sorted(key for (table, key), row in rows.items() if table == name and row["run_id"] == run_id)
        if keys:
            described[name] = {"rows": len(keys), "keys": hashlib.md5(" ".join(keys).encode()).hexdigest()}
    return described


def list_runs(lake: Lake) -> dict[str, str]:
    """Return the status of each run."""
    return {row["run_id"]: row["status"] for row in lake.sql("SELECT run_id, status FROM runs").to_pylist()}


def find_checkpoints() -> dict[Path, int]:
    """Return when each file of the trainings' checkpoints was written."""
    return {path: path.stat().st_mtime_ns for path in Path("training").glob("*/checkpoint-*/*")}


def read_log() -> Iterator[dict[str, Any]]:
    """Read the actions of all Delta logs, those of checkpoints included."""
    for file in sorted(FOLDER.glob("lake/*/_delta_log/*.json")):
        yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())
    for file in sorted(FOLDER.glob("lake/*/_delta_log/*.parquet")):
        yield from pq.read_table(file).to_pylist()


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A copy of the lake in the working directory, at another path than where it was made."""
    for name in ("RLT_DATA_LAKE", "RLT_DATA_COMMIT_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(FOLDER, tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    return Lake("lake", create=False)


def test_the_log_finds_its_files_wherever_the_lake_is() -> None:
    paths = [action["add"]["path"] for action in read_log() if action.get("add")]
    assert len(paths) > 60
    assert not [path for path in paths if "/" in path]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer["query"][:40])
def test_the_same_sql_has_the_same_answer(answer: dict[str, Any], lake: Lake) -> None:
    rows = [list(row.values()) for row in lake.sql(answer["query"]).to_pylist()]
    assert rows == answer["rows"]


def test_fingerprints_are_made_of_the_same_parts() -> None:
    """Names of configuration fields are among them: where a field is renamed, its old name is hashed."""
    made = json.loads((FOLDER / "fingerprints.json").read_text(encoding="utf-8"))
    known = {
        row["fingerprint"]: row["run_id"]
        for row in Lake(FOLDER / "lake", create=False).sql("SELECT fingerprint, run_id FROM runs").to_pylist()
    }
    assert made["runs"].keys() == known.keys()
    for fingerprint, parts in made["runs"].items():
        names = ("stage", "scheme_version", "config", "inputs", "models", "identity")
        assert hash_content(made["scheme"], *(parts[name] for name in names)) == fingerprint
        assert hash_content(fingerprint, 0) == known[fingerprint]


@pytest.mark.parametrize("stage", STAGES)
def test_a_finished_run_is_finished(stage: str, lake: Lake) -> None:
    recorded = RUNS["stages"][stage]["finished"]
    before, runs = read_rows(lake), list_runs(lake)
    summary = run_stage(stage, recorded["config"])
    assert (summary.status, summary.run_id) == ("already finished", recorded["run_id"])
    assert read_rows(lake) == before
    assert list_runs(lake) == runs
    assert describe_rows(before, recorded["run_id"]) == recorded["rows"]


@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=[pytest.mark.slow] * (stage in TRAININGS)) for stage in STAGES]
)
def test_an_interrupted_run_resumes(stage: str, lake: Lake) -> None:
    recorded = RUNS["stages"][stage]["interrupted"]
    run_id = recorded["run_id"]
    before, runs = read_rows(lake), list_runs(lake)
    assert runs[run_id] == "started"
    assert describe_rows(before, run_id) == recorded["rows_at_cut"]
    checkpoints = find_checkpoints()
    summary = run_stage(stage, recorded["config"])
    assert (summary.status, summary.run_id) == ("finished", run_id)
    assert checkpoints.items() <= find_checkpoints().items(), "a training began at its first step again"
    after = read_rows(lake)
    assert describe_rows(after, run_id) == recorded["rows"]
    assert {key: after[key] for key in before} == before, "a row was changed"
    assert {row["run_id"] for key, row in after.items() if key not in before} <= {run_id}
    assert list_runs(lake) == {**runs, run_id: "finished"}
    events = lake.sql(f"SELECT status FROM run_events WHERE run_id = '{run_id}' ORDER BY sequence")
    assert events.column("status").to_pylist() == ["started", "resumed", "finished"]
    check_files(stage, summary)
    assert run_stage(stage, recorded["config"]).status == "already finished"


def check_files(stage: str, summary: Any) -> None:
    """Check what a stage leaves beside its rows."""
    if stage == "export":
        examples = RUNS["stages"]["substitute"]["finished"]["rows"]["distillation"]["rows"]
        assert len(Path("exports/interrupted.jsonl").read_text("utf-8").splitlines()) == examples
        assert sorted(path.name for path in Path("exports").iterdir()) == ["finished", "interrupted.jsonl"]
    if stage in TRAININGS:
        assert (Path(summary.extra["model"]) / "model.safetensors").is_file()
        assert summary.extra["optimiser_steps"] == {"sft": 6, "grpo": 4}[stage]


def test_verify_says_what_it_cannot_check(lake: Lake) -> None:
    """Version 0.1 recorded no SHA-256: counts, digests, sizes and structure are checked."""
    assert lake.check() == []
    reports = {report.table: report for report in lake.verify()}
    assert [report.damages for report in reports.values() if report.damages] == []
    for name in ("questions", "traces", "scores", "runs"):
        (note,) = reports[name].notes
        assert "no recorded SHA-256" in note
    file = next(Path(lake.table("scores").uri).glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-1])
    assert [d.path for report in lake.verify() for d in report.damages] == [f"scores/{file.name}"]
