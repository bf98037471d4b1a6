from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from command_line import find_program
from small_lake import append_made, make_lake, make_question, make_score, make_trace

from rlt_data.atomic_files import write_aside
from rlt_data.errors import LakeError, UsageError
from rlt_data.lake import Lake
from rlt_data.stages.export import ExportConfig, export
from rlt_data.stages.export.dataset_card import _write_figure
from rlt_data.stages.export.examples import _fill_completion_start
from rlt_data.stages.export.replacing import MANIFEST
from rlt_data.stages.rank import RankConfig, rank
from rlt_data.stages.substitute import SubstituteConfig, substitute

FORMS = ["dataset", "jsonl", "parquet", "sharegpt", "messages"]
SUFFIX = {"dataset": "", "parquet": ".parquet"}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Lake:
    folder = tmp_path_factory.mktemp("export")
    made, _ = make_lake(folder, questions=4, samples=2, exact=0.1)
    rank(made, RankConfig())
    format = folder / "short.toml"
    format.write_text(
        'base = "stratos"\n[teacher]\nsystem = "T"\n[student]\nsystem = "Think."\n', encoding="utf-8"
    )
    substitute(made, SubstituteConfig(student=str(tiny_model), format=str(format)))
    return made


def load(path: Path, form: str) -> Any:
    datasets = pytest.importorskip("datasets")
    cache = str(path.parent / "cache")
    if form == "dataset":
        return datasets.load_dataset(str(path), split="train", cache_dir=cache)
    kind = "parquet" if form == "parquet" else "json"
    return datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=cache)


def run_export(lake: Lake, path: Path, form: str, **settings: Any) -> Any:
    return export(lake, ExportConfig.model_validate({"path": str(path), "form": form, **settings}))


@pytest.mark.parametrize("form", FORMS)
def test_each_form_loads_in_datasets_and_trains_a_step_in_trl(
    lake: Lake, tmp_path: Path, tiny_model: Path, form: str
) -> None:
    path = tmp_path / f"out{SUFFIX.get(form, '.jsonl')}"
    summary = run_export(lake, path, form)
    assert (summary.rows_in, summary.extra["examples"]) == (4, 4)
    examples = load(path, form)
    assert len(examples) == 4
    trl = pytest.importorskip("trl")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path / "trained"),
        max_steps=1,
        per_device_train_batch_size=2,
        max_length=1024,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        bf16=False,
    )
    trainer = trl.SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_model),
        args=arguments,
        train_dataset=examples,
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    for labels in batch["labels"]:
        trained = labels[labels != -100].tolist()
        assert tokenizer.eos_token_id in trained[-2:], "the model must learn to stop"
        text = tokenizer.decode(trained)
        assert "<|begin_of_thought|>\n\nFirst add" in text
        assert "The answer is \\boxed{14}.<|end_of_solution|><|im_end|>" in text
        if form in ("dataset", "jsonl", "parquet"):
            assert "What is" not in text, "the loss is on the completion only"
        else:
            assert "<|im_start|>user\nWhat is" in text
    assert trainer.train().training_loss > 0


def test_prompt_and_completion_make_the_text(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    run_export(lake, path, "jsonl")
    stored = {row["example_id"]: row for row in lake.table("distillation").scan().collect().to_dicts()}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["question_id"] for row in rows] == ["q0", "q1", "q2", "q3"]
    for row in rows:
        example = stored[row["example_id"]]
        assert row["text"] == row["prompt"] + row["completion"] == example["text"]
        assert row["completion"].startswith("<|begin_of_thought|>")
        assert row["think"] in row["completion"]
        assert row["solution"] in row["completion"]
        assert row["reward"] == example["reward"]
        # Absolute paths of this machine are not exported.
        assert (row["teacher_model"], row["source"]) == ("teacher", "made.jsonl")


@pytest.mark.parametrize("start", [0, None])
def test_the_stored_start_of_a_completion_is_used_and_a_missing_one_found(start: int | None) -> None:
    """An example of version 0.1 stores none. The first is rendered by a template that changes its turn."""
    rows = pl.DataFrame(
        {
            "text": ["user: ab assistant: changed", "user: ab assistant: ab"],
            "messages": [[{"role": "assistant", "content": content}] for content in ("original", "ab")],
            "completion_start": pl.Series([20, start], dtype=pl.Int32),
        }
    )
    assert _fill_completion_start(rows).get_column("completion_start").to_list() == [
        20,
        20 if start is None else start,
    ]


def test_conversations_have_the_forms_that_others_read(lake: Lake, tmp_path: Path) -> None:
    run_export(lake, tmp_path / "a.jsonl", "messages")
    run_export(lake, tmp_path / "b.jsonl", "sharegpt")
    run_export(lake, tmp_path / "c.jsonl", "sharegpt", sharegpt_roles="human-gpt")
    messages, ours, original = (
        json.loads((tmp_path / name).read_text(encoding="utf-8").splitlines()[0])
        for name in ("a.jsonl", "b.jsonl", "c.jsonl")
    )
    assert list(messages) == ["messages"]
    assert [m["role"] for m in messages["messages"]] == ["system", "user", "assistant"]
    assert list(ours) == list(original) == ["conversations"]
    assert [m["from"] for m in ours["conversations"]] == ["system", "user", "assistant"]
    assert [m["from"] for m in original["conversations"]] == ["system", "human", "gpt"]
    assert [m["value"] for m in ours["conversations"]] == [m["content"] for m in messages["messages"]]


def test_datasets_takes_the_whole_card(lake: Lake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_export(lake, tmp_path / "set", "dataset")
    features = load(tmp_path / "set", "dataset").features
    assert "gnoring" not in capfd.readouterr().err
    assert features["rank"].dtype == "int32"


def test_the_card_states_where_everything_comes_from(lake: Lake, tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "my-set"
    run_export(lake, path, "dataset", license="apache-2.0")
    card = (path / "README.md").read_text(encoding="utf-8")
    front = card.split("---\n")[1]
    assert 'license: "apache-2.0"' in front
    assert "path: data/train-*" in front
    for run in lake.runs():
        if run.stage in ("ingest", "generate", "score", "rank", "substitute"):
            assert f"### {run.stage}" in card
            assert run.run_id in card
    substitution = next(run for run in lake.runs() if run.stage == "substitute")
    assert str(substitution.models[0]["revision"]) in card
    assert "| policy | best-of-n(1) |" in card
    assert "rankings@" in card
    assert "load_dataset(" in card
    assert str(tiny_model) not in card, "no path of this machine"
    assert "{{" not in card
    examples = load(path, "dataset")
    declared = {name: feature.dtype for name, feature in examples.features.items()}
    assert declared["reward"] == "float64"
    assert declared["rank"] == "int32"
    assert [f.name for f in (path / "data").iterdir()] == ["train-00000-of-00001.parquet"]


def test_an_export_is_done_once_and_again_when_its_files_are_gone(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "set"
    first = run_export(lake, path, "dataset")
    again = run_export(lake, path, "dataset")
    assert (again.run_id, again.status) == (first.run_id, "already finished")
    config = ExportConfig(path=str(path))
    assert export.plan(lake, config).state == "finished"
    content = (path / "README.md").read_bytes()
    shutil.rmtree(path)
    assert export.plan(lake, config).state == "new"
    third = run_export(lake, path, "dataset")
    assert third.run_id != first.run_id
    assert third.status == "finished"
    assert (path / "README.md").read_bytes() == content
    assert set(third.extra["files"]) == {MANIFEST, "README.md", "data/train-00000-of-00001.parquet"}


def test_the_run_is_recorded_with_the_hashes_of_its_files(lake: Lake, tmp_path: Path) -> None:
    summary = run_export(lake, tmp_path / "a.parquet", "parquet")
    record = lake.run(summary.run_id)
    assert record.finished
    assert record.counts["extra"]["files"] == summary.extra["files"]
    assert len(summary.extra["files"]["a.parquet"]) == 32
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 4


@pytest.mark.parametrize("form", ["jsonl", "dataset"])
def test_an_existing_export_is_not_overwritten_unless_requested(
    lake: Lake, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "there"
    if form == "dataset":
        run_export(lake, path, form)
        (path / "README.md").write_text("mine", encoding="utf-8")
    else:
        path.write_text("mine", encoding="utf-8")
    mine = path / "README.md" if form == "dataset" else path
    for _ in range(2):
        with pytest.raises(UsageError, match="exists already"):
            run_export(lake, path, form)
        assert mine.read_text(encoding="utf-8") == "mine"
    run_export(lake, path, form, overwrite=True)
    assert len(load(path, form)) == 4
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_a_changed_file_is_not_silently_replaced(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    run_export(lake, path, "jsonl")
    path.write_text("edited by hand", encoding="utf-8")
    with pytest.raises(UsageError, match="exists already"):
        run_export(lake, path, "jsonl")
    assert path.read_text(encoding="utf-8") == "edited by hand"
    assert run_export(lake, path, "jsonl", overwrite=True).status == "finished"


def test_nothing_but_an_export_is_ever_replaced(lake: Lake, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work", encoding="utf-8")
    for form in ("dataset", "jsonl"):
        with pytest.raises(UsageError, match="is not replaced"):
            run_export(lake, home, form, overwrite=True)
    assert (home / "thesis.tex").read_text(encoding="utf-8") == "years of work"


def test_nothing_to_export_is_an_error(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="no finished run of substitute"):
        run_export(Lake(tmp_path / "empty"), tmp_path / "a", "jsonl")
    with pytest.raises(UsageError, match="written to a local path"):
        export(lake, ExportConfig(path="s3://bucket/set"))


# Python's audit events report when a file is renamed or opened: the program kills itself there.
PROGRAM = """
    import os, signal, sys
    from rlt_data.lake import Lake
    from rlt_data.stages.export import ExportConfig, export

    point, uri, path, form = sys.argv[1:]
    placed = False

    def watch(event, arguments):
        global placed
        if event == "os.rename":
            goes_to = str(arguments[1])
            if point == "while writing" and goes_to.endswith(".parquet"):
                os.kill(os.getpid(), signal.SIGKILL)
            if goes_to == path:
                if point == "written":
                    os.kill(os.getpid(), signal.SIGKILL)
                placed = True
        elif event == "open" and placed and point == "in place":
            os.kill(os.getpid(), signal.SIGKILL)

    lake = Lake(uri)
    sys.addaudithook(watch)
    export(lake, ExportConfig(path=path, form=form))
"""


@pytest.mark.parametrize(
    ("form", "point"),
    [("dataset", "while writing"), ("dataset", "written"), ("dataset", "in place"), ("jsonl", "written"),
     ("parquet", "in place")],
)  # fmt: skip
def test_a_killed_export_leaves_no_partial_files_and_resumes(
    lake: Lake, tmp_path: Path, form: str, point: str
) -> None:
    path = tmp_path / "out"
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), point, lake.uri, str(path), form]
    killed = subprocess.run(command, timeout=120, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    if point == "in place":
        assert len(load(path, form)) == 4
    else:
        assert not path.exists()
    summary = run_export(lake, path, form)
    assert summary.status == "finished"
    assert len(load(path, form)) == 4
    left_over = [p.name for p in tmp_path.iterdir() if p.name not in ("out", "cache")]
    assert left_over == []


def test_where_and_limit_choose_examples(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "first.jsonl"
    assert run_export(lake, path, "jsonl", limit=3).extra["examples"] == 3
    first = [json.loads(line)["question_id"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert first == ["q0", "q1", "q2"]
    rest = tmp_path / "rest.jsonl"
    assert run_export(lake, rest, "jsonl", where="question_id = 'q3'").extra["examples"] == 1
    with pytest.raises(LakeError, match="no examples to export"):
        run_export(lake, tmp_path / "none.jsonl", "jsonl", where="false")


def test_the_card_of_a_combined_ranking_names_the_scoring_runs_and_groups_digits(
    tmp_path: Path, tiny_model: Path
) -> None:
    lake = Lake(tmp_path / "lake")
    append_made(lake, "ingest", "questions", [make_question(0)])
    trace = make_trace(0, 0, think="word " * 3000)
    append_made(lake, "generate", "traces", [trace])
    runs = [
        append_made(lake, "score", "scores", [make_score(trace, -1.0, student=name)], label=name)
        for name in ("one", "two")
    ]
    rank(lake, RankConfig(combine="mean"))
    substitute(lake, SubstituteConfig(student=str(tiny_model), over_context="keep"))
    path = tmp_path / "set"
    run_export(lake, path, "dataset")
    card = (path / "README.md").read_text(encoding="utf-8")
    assert all(run in card for run in runs)
    mean = lake.table("distillation").scan().collect().get_column("total_tokens").mean()
    assert f"{mean:,.0f}" in card
    assert "e+04" not in card


def test_figures_of_the_card_keep_their_digits() -> None:
    assert [_write_figure(value) for value in (12, 12345, 12345.6, 999.94, 0.12345, -1234.5)] == [
        "12", "12,345", "12,346", "999.9", "0.1235", "-1,234",
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["dataset", "jsonl"])
def test_two_exports_to_one_path_at_once_both_end_well(lake: Lake, tmp_path: Path, form: str) -> None:
    path = tmp_path / "out"
    command = [find_program(), "export", str(path), "--form", form, "--lake", lake.uri, "--overwrite"]
    with write_aside(path) as draft:  # as another export would
        second = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert second.stderr is not None
        assert f"waiting for process {os.getpid()}" in second.stderr.readline()
        if form == "dataset":
            draft.mkdir()
        else:
            draft.touch()
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    assert len(load(path, form)) == 4


@pytest.mark.parametrize("form", FORMS)
def test_a_pipe_or_a_link_is_not_replaced_by_an_export(lake: Lake, tmp_path: Path, form: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    for name in ("pipe", "link"):
        before = (tmp_path / name).lstat()
        with pytest.raises(UsageError, match="is not replaced"):
            run_export(lake, tmp_path / name, form, overwrite=True)
        assert os.path.samestat(before, (tmp_path / name).lstat())


def test_a_path_that_is_not_utf_8_is_refused_before_a_run_is_recorded(lake: Lake, tmp_path: Path) -> None:
    before = len(lake.runs())
    with pytest.raises(UsageError, match="the path of the export is not valid UTF-8"):
        run_export(lake, tmp_path / "d\udcff" / "out.jsonl", "jsonl")
    assert len(lake.runs()) == before
    assert list(tmp_path.glob("d*")) == []


def test_a_directory_with_data_of_others_is_not_replaced(lake: Lake, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    (home / "README.md").write_text("my project", encoding="utf-8")
    (home / "data" / "measurements.parquet").write_text("years of work", encoding="utf-8")
    with pytest.raises(UsageError, match=r"data/measurements\.parquet"):
        run_export(lake, home, "dataset", overwrite=True)
    assert (home / "data" / "measurements.parquet").exists()


def read_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# The file names are those of an export, and the card of the last one names the program.
FOREIGN = {
    "a project": {"README.md": "# My project\n"},
    "an unfinished project": {"README.md": ""},
    "a dataset of the hub": {
        "README.md": "---\ntags:\n- reasoning\nconfigs:\n- config_name: default\n---\n\n# Their dataset\n",
        "data/train-00000-of-00003.parquet": "one",
        "data/train-00001-of-00003.parquet": "two",
        "data/train-00002-of-00003.parquet": "three",
    },
    "shards alone": {"data/train-00000-of-00001.parquet": "one"},
    "a tagged dataset": {
        "README.md": "---\ntags:\n- rlt-data\n---\n\n# Notes on training examples made with rlt-data\n",
        "data/train-00000-of-00001.parquet": "one",
    },
    "a manifest of something else": {MANIFEST: "[]", "README.md": "mine"},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_directory_of_others_whose_files_have_the_names_of_an_export_is_not_replaced(
    lake: Lake, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "there"
    for path, content in FOREIGN[name].items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")
    before = read_files(folder)
    for _ in range(2):  # The run that failed resumes.
        with pytest.raises(UsageError, match=r"is not replaced\n.*(README\.md|data/train-0)"):
            run_export(lake, folder, "dataset", overwrite=True)
    assert read_files(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_an_own_export_is_replaced_and_one_to_which_files_were_added_is_not(
    lake: Lake, tmp_path: Path
) -> None:
    path = tmp_path / "set"
    run_export(lake, path, "dataset")
    assert run_export(lake, path, "dataset", overwrite=True, limit=2).extra["examples"] == 2
    for added in ("notes.txt", "data/train-00001-of-00001.parquet", ".git/HEAD"):
        (path / added).parent.mkdir(exist_ok=True)
        (path / added).write_text("years of work", encoding="utf-8")
        with pytest.raises(UsageError, match="is not replaced"):
            run_export(lake, path, "dataset", overwrite=True, limit=3)
        assert (path / added).read_text(encoding="utf-8") == "years of work"
        (path / added).unlink()
    (path / ".git").rmdir()
    (path / MANIFEST).unlink()  # as exports of version 0.1 are
    assert run_export(lake, path, "dataset", overwrite=True, limit=3).extra["examples"] == 3
    assert len(load(path, "dataset")) == 3


def test_an_export_into_the_lake_is_refused(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(lake.uri)
    for folder in (Path(lake.uri), Path(lake.uri) / "traces", tmp_path / "link"):
        with pytest.raises(UsageError, match="is inside the lake"):
            run_export(lake, folder / "out.jsonl", "jsonl", overwrite=True)
    assert not list(Path(lake.uri).rglob("*out.jsonl*"))
