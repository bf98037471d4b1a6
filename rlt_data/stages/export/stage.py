"""Export: the distillation examples as files that other programs read.

Everything is written aside and moved into place whole: an export that was killed leaves nothing under its
name. An export that finished is not done again while its files are there, unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from rlt_data.atomic_files import hash_files, is_intact, write_aside
from rlt_data.errors import LakeError, UsageError
from rlt_data.lake import Lake, RunRecord
from rlt_data.progress import Reporter, Task
from rlt_data.schemas import MESSAGES
from rlt_data.stages.export.dataset_card import write_dataset_card
from rlt_data.stages.runtime.run import StageConfig, StageRun, StageSummary, open_run
from rlt_data.stages.runtime.selection import find_run

Form = Literal["jsonl", "parquet", "dataset", "sharegpt", "messages"]

READ_ROWS = 4_096
SHARD_BYTES = 400 * 2**20

TEXT = pa.string()
# What each form holds, in order. `prompt` + `completion` = `text`.
EXAMPLE_SCHEMA = pa.schema(
    [
        pa.field(name, kind)
        for name, kind in (
            ("example_id", TEXT),
            ("question_id", TEXT),
            ("trace_id", TEXT),
            ("prompt", TEXT),
            ("completion", TEXT),
            ("text", TEXT),
            ("question", TEXT),
            ("think", TEXT),
            ("solution", TEXT),
            ("answer", TEXT),
            ("rank", pa.int32()),
            ("reward", pa.float64()),
            ("prompt_tokens", pa.int32()),
            ("total_tokens", pa.int32()),
            ("over_context", pa.bool_()),
            ("stands_in_for", TEXT),
            ("format", TEXT),
            ("tokenizer", TEXT),
            ("teacher", TEXT),
            ("teacher_model", TEXT),
            ("teacher_revision", TEXT),
            ("dataset", TEXT),
            ("source", TEXT),
            ("source_row", pa.int64()),
        )
    ]
)
SHAREGPT_SCHEMA = pa.schema(
    [pa.field("conversations", pa.list_(pa.struct([("from", TEXT), ("value", TEXT)])))]
)
MESSAGES_SCHEMA = pa.schema([pa.field("messages", MESSAGES)])


class ExportConfig(StageConfig):
    """What is exported, in which form and where to."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"path", "distillation", "overwrite"})

    path: str = Field(description="File to write, or directory for the form `dataset`.")
    form: Form = Field(
        "dataset",
        description="dataset (a Hugging Face dataset directory with its card), jsonl, parquet, sharegpt "
        "(JSON lines, conversations of from and value) or messages (JSON lines, as OpenAI has them).",
    )
    distillation: str | None = Field(
        None, description="Run that substituted (id or prefix); unset: the newest finished."
    )
    sharegpt_roles: Literal["user-assistant", "human-gpt"] = Field(
        "user-assistant",
        description="Names of the speakers in ShareGPT form: as Bespoke-Stratos and TRL have them, or the "
        "original ones, which LLaMA-Factory expects.",
    )
    title: str | None = Field(None, description="Title of the dataset card; unset: the directory's name.")
    license: str | None = Field(None, description="Licence that the dataset card states, such as apache-2.0.")
    overwrite: bool = Field(False, description="Replace what is there already.")


def export(
    lake: Lake, config: ExportConfig, *, force: bool = False, reporter: Reporter | None = None
) -> StageSummary:
    """Write the distillation examples to files: JSON lines, Parquet, a dataset directory, ShareGPT, messages.

    The newest finished substitution is exported unless one is named. The files appear whole or not at
    all; their hashes stand in the summary and in `runs`. Each form loads with `datasets.load_dataset`.

    Raises `UsageError` where something is there already, unless `overwrite` or `force` is given, and
    `LakeError` where there is nothing to export.
    """
    source = find_run(lake, "substitute", config.distillation)
    target = _find_target(config.path)
    again = force or config.overwrite
    with open_run(
        lake,
        "export",
        config,
        inputs=(),
        pinned=("distillation", "questions", "traces"),
        outputs=(),
        identity={"distillation": source.run_id, "path": str(target)},
        force=force,
        # Where the files are gone or were changed, the same export is made once more.
        still_there=lambda summary: is_intact(target, summary.extra.get("files", {})),
        reporter=reporter,
    ) as run:
        if run.already_done:
            return run.summary
        if target.exists():
            _check_replaceable(target, config.form)
            if not again and lake.run(run.run_id).status != "resumed":
                raise _explain_existing(target)
        with write_aside(target) as draft:
            _write_form(run, config, source, target, draft)
            # A run that was killed after its files were in place finds what it is about to write.
            if target.exists() and not again and hash_files(draft, target.name) != hash_files(target):
                raise _explain_existing(target)
        run.summary.extra |= {
            "path": str(target),
            "distillation": source.run_id,
            "files": hash_files(target),
        }
    return run.summary


def _find_target(path: str) -> Path:
    if "://" in path:
        raise UsageError(
            "an export goes to this machine's file system",
            where=path,
            remedy="name a local path and copy it from there",
        )
    return Path(path).expanduser().absolute()


def _write_form(run: StageRun, config: ExportConfig, source: RunRecord, target: Path, draft: Path) -> None:
    mine = run.read("distillation").filter(pl.col("run_id") == source.run_id)
    keys = mine.select("example_id", "question_id", "rank").collect()
    order = keys.sort("question_id", "rank", "example_id").get_column("example_id")
    if not len(order):
        raise LakeError(
            "there are no examples to export",
            where=f"run {source.run_id} of substitute",
            remedy='see its rejects: rlt-data sql "select reason, count(*) from rejects group by 1"',
        )
    run.count(rows_in=len(order), examples=len(order))
    with run.track(f"exporting {config.form}", len(order), unit="examples") as task:
        batches = _read_examples(run, order, task)
        match config.form:
            case "parquet":
                _write_parquet(draft, batches)
            case "jsonl":
                _write_lines(draft, batches)
            case "messages":
                _write_lines(draft, (batch.select(["messages"]) for batch in batches))
            case "sharegpt":
                _write_lines(draft, (_convert_to_sharegpt(b, config.sharegpt_roles) for b in batches))
            case "dataset":
                _write_shards(draft, batches)
                card = write_dataset_card(
                    run.lake,
                    source,
                    title=config.title or target.name,
                    license=config.license,
                    examples=len(order),
                    schema=EXAMPLE_SCHEMA,
                )
                (draft / "README.md").write_text(card, encoding="utf-8")


def _read_examples(run: StageRun, order: pl.Series, task: Task) -> Iterator[pa.Table]:
    """Read examples with their question and trace, in order; all columns of every form."""
    questions = run.read("questions").select(
        "question_id", "question", "solution", "answer", "dataset", "source", "source_row"
    )
    traces = run.read("traces").select("trace_id", "think", "teacher", "teacher_model", "teacher_revision")
    kept = [
        name for name in EXAMPLE_SCHEMA.names if name in run.lake.table("distillation").schema.arrow.names
    ]
    for start in range(0, len(order), READ_ROWS):
        wanted = order.slice(start, READ_ROWS)
        examples = run.read("distillation").filter(pl.col("example_id").is_in(wanted.to_list()))
        rows = (
            pl.LazyFrame({"example_id": wanted})
            .join(examples.select(*kept, "messages"), on="example_id", maintain_order="left")
            .join(questions, on="question_id", how="left", maintain_order="left")
            .join(traces, on="trace_id", how="left", maintain_order="left")
            .collect()
        )
        contents = [messages[-1]["content"] for messages in rows.get_column("messages").to_list()]
        texts = rows.get_column("text").to_list()
        begins = [text.rindex(content) for text, content in zip(texts, contents, strict=True)]
        rows = rows.with_columns(
            pl.Series("prompt", [text[:begin] for text, begin in zip(texts, begins, strict=True)]),
            pl.Series("completion", [text[begin:] for text, begin in zip(texts, begins, strict=True)]),
            # Where a file lay on the machine that made it is nobody's business; its name may say something.
            *(_drop_folders(name) for name in ("tokenizer", "teacher_model", "source")),
        )
        table = rows.select(*EXAMPLE_SCHEMA.names, "messages").to_arrow()
        yield table.cast(pa.schema([*EXAMPLE_SCHEMA, *MESSAGES_SCHEMA]))
        task.advance(rows.height)


def _drop_folders(name: str) -> pl.Expr:
    column = pl.col(name)
    return (
        pl.when(column.str.starts_with("/"))
        .then(column.str.split("/").list.last())
        .otherwise(column)
        .alias(name)
    )


def _convert_to_sharegpt(batch: pa.Table, roles: str) -> pa.Table:
    names = {"user": "human", "assistant": "gpt"} if roles == "human-gpt" else {}
    conversations = [
        [{"from": names.get(m["role"], m["role"]), "value": m["content"]} for m in messages]
        for messages in batch.column("messages").to_pylist()
    ]
    return pa.Table.from_pydict({"conversations": conversations}, schema=SHAREGPT_SCHEMA)


def _write_lines(draft: Path, batches: Iterator[pa.Table]) -> None:
    with draft.open("w", encoding="utf-8", newline="\n") as stream:
        for batch in batches:
            columns = [name for name in batch.column_names if name != "messages" or batch.num_columns == 1]
            for row in batch.select(columns).to_pylist():
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_parquet(draft: Path, batches: Iterator[pa.Table]) -> None:
    with pq.ParquetWriter(draft, EXAMPLE_SCHEMA, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(batch.select(EXAMPLE_SCHEMA.names))


def _write_shards(draft: Path, batches: Iterator[pa.Table]) -> None:
    """Write data/train-00000-of-0000N.parquet; shards end where enough has come, in memory terms."""
    folder = draft / "data"
    folder.mkdir(parents=True)
    written: list[Path] = []
    held: list[pa.Table] = []

    def close_shard() -> None:
        path = folder / f"{len(written):05d}.parquet"
        _write_parquet(path, iter(held))
        written.append(path)
        held.clear()

    for batch in batches:
        held.append(batch)
        if sum(table.nbytes for table in held) >= SHARD_BYTES:
            close_shard()
    if held:
        close_shard()
    for place, path in enumerate(written):
        path.rename(folder / f"train-{place:05d}-of-{len(written):05d}.parquet")


def _check_replaceable(target: Path, form: Form) -> None:
    """Refuse to put an export in the place of anything that is not one, also when overwriting."""
    if form == "dataset":
        others = ["a file"] if target.is_file() else [p.name for p in target.iterdir()]
        wrong = sorted(set(others) - {"README.md", "data"})
    else:
        wrong = ["a directory"] if target.is_dir() else []
    if wrong:
        raise UsageError(
            "what is there is no export of this form, so it is not replaced",
            where=f"{target}: {', '.join(wrong[:5])}",
            remedy="name another path, or remove it yourself",
        )


def _explain_existing(target: Path) -> UsageError:
    return UsageError(
        "something is there already", where=str(target), remedy="name another path, or give --overwrite"
    )
