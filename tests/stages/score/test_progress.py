"""Each trace counts once, whichever students and sessions scored it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from stages.score.golden_lake import build_golden_lake

from rlt_data.lake import Lake
from rlt_data.models import resolve_model
from rlt_data.progress import Reporter, Task
from rlt_data.stages.runtime.contract import RowField
from rlt_data.stages.score import ScoreConfig, group, score
from rlt_data.stages.score.rows import ScoreKey
from rlt_data.stages.score.trace_groups import ScoreGroup

TRACES = 12


class StoppingReporter(Reporter):
    """Interrupts the stage, as Ctrl-C does, once `stop_after` traces are shown as done."""

    def __init__(self, stop_after: int) -> None:
        super().__init__(quiet=True)
        self.stop_after = stop_after
        self.tasks: list[Task] = []

    @contextmanager
    def track(self, description: str, total: int | None, unit: str = "rows") -> Iterator[Task]:
        with super().track(description, total, unit) as task:
            self.tasks.append(task)
            advance = task.advance

            def stop(n: int = 1, tokens: int = 0) -> None:
                advance(n, tokens)
                if task.done >= self.stop_after:
                    raise KeyboardInterrupt

            task.advance = stop  # type: ignore[method-assign]
            yield task


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLT_DATA_COMMIT_SECONDS", "0")
    monkeypatch.setattr(group, "COMMIT_ROWS", 1)


def make_config(golden: Path, format_path: str, **options: Any) -> ScoreConfig:
    students = (str(golden / "student"), str(golden / "teacher"))
    return ScoreConfig(students=students, format=format_path, pack_tokens=200, batch_tokens=500, **options)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("stop_after", [1, 5, 11])
def test_a_resumed_run_of_two_students_counts_each_trace_once(
    golden: Path, tmp_path: Path, stop_after: int
) -> None:
    lake, format_path = build_golden_lake(golden, tmp_path)
    config = make_config(golden, format_path)
    reporter = StoppingReporter(stop_after)
    with pytest.raises(KeyboardInterrupt):
        score(lake, config, reporter=reporter)
    assert 0 < lake.table("scores").count() < 2 * TRACES
    summary = score(lake, config)
    assert (summary.rows_in, summary.rows_out) == (TRACES, 2 * TRACES)


@pytest.mark.usefixtures("small_chunks")
def test_a_trace_that_one_student_rejects_counts_once_and_the_bar_ends_full(
    golden: Path, tmp_path: Path
) -> None:
    # The second student has a context that some texts exceed.
    short = tmp_path / "short"
    shutil.copytree(golden / "student", short)
    config_file = short / "config.json"
    text = config_file.read_text(encoding="utf-8")
    context = next(line for line in text.splitlines() if "max_position_embeddings" in line)
    config_file.write_text(text.replace(context, '  "max_position_embeddings": 150,'), encoding="utf-8")
    lake, format_path = build_golden_lake(golden, tmp_path)
    config = ScoreConfig(
        students=(str(golden / "student"), str(short)), format=format_path, pack_tokens=200, batch_tokens=500
    )
    reporter = StoppingReporter(TRACES + 1)
    summary = score(lake, config, reporter=reporter)
    (task,) = [task for task in reporter.tasks if task.description.startswith("score with")]
    assert 0 < summary.rejected < TRACES
    assert summary.rows_in == task.done == TRACES
    assert summary.rows_out + summary.rejected == 2 * TRACES
    other = Lake(tmp_path / "interrupted")
    shutil.copytree(tmp_path / "lake" / "questions", Path(other.uri) / "questions")
    shutil.copytree(tmp_path / "lake" / "traces", Path(other.uri) / "traces")
    for stop_after in (3, 2):
        with pytest.raises(KeyboardInterrupt):
            score(other, config, reporter=StoppingReporter(stop_after))
    resumed = score(other, config)
    assert (resumed.rows_in, resumed.rows_out, resumed.rejected) == (
        summary.rows_in,
        summary.rows_out,
        summary.rejected,
    )


class ChangedConfig(ScoreConfig):
    """A version with one more option that enters every key."""

    softcap: RowField[float] = 0.0


def test_every_row_field_changes_the_key_of_a_score(golden: Path) -> None:
    teacher = resolve_model(str(golden / "teacher"), role="teacher")
    student = resolve_model(str(golden / "student"), role="student")
    traces = ScoreGroup("stratos", teacher, pl.lit(True))

    def make_id(config: type[ScoreConfig] = ScoreConfig, **options: Any) -> str:
        made = config.model_validate({"students": ("s",), **options})
        return ScoreKey(made, traces, "float32", 0).make_id("t", student)

    changed: dict[str, Any] = {
        "temperature": 1.0,
        "teacher_temperature": 0.9,
        "exact": True,
        "rescore_teacher": True,
        "backend": "vllm",
    }
    fields = [name for name in ScoreConfig.model_fields if ScoreConfig.find_identity(name).part == "row"]
    assert set(fields) == set(changed)
    keys = {name: make_id(**{name: value}) for name, value in changed.items()}
    assert len({make_id(), *keys.values()}) == len(keys) + 1
    assert len({make_id(), *(make_id(ChangedConfig, softcap=cap) for cap in (0.0, 30.0))}) == 3
    assert make_id(limit=3) == make_id(noise_check=4) == make_id(memory="1GiB") == make_id()
