"""The card of an exported dataset: how to load it, its columns, and where every part of it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
import pyarrow as pa

from rlt_data.lake import Lake, RunRecord

# Settings of a stage that do not describe the data.
OMITTED = frozenset({"batch_size", "pack_tokens", "batch_tokens", "device", "overwrite", "verify_processes"})
TYPES = {
    pa.string(): "string",
    pa.int32(): "int32",
    pa.int64(): "int64",
    pa.float64(): "float64",
    pa.bool_(): "bool",
}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_dataset_card(
    lake: Lake,
    source: RunRecord,
    *,
    title: str,
    license: str | None,
    examples: int,
    schema: pa.Schema,
) -> str:
    """Return the Markdown card, YAML front matter first, of the examples that run `source` substituted.

    The lineage is the runs that made them: substitution, ranking, scoring, generation and ingestion, each
    with its settings, its models' revisions and the versions of the tables that it read.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters["cell"] = _write_cell
    environment.filters["yaml"] = lambda text: json.dumps(text, ensure_ascii=False)
    template = resources.files(__package__).joinpath("dataset_card.md.j2").read_text(encoding="utf-8")
    mine = lake.table("distillation").scan().filter(pl.col("run_id") == source.run_id)
    runs = _list_runs(lake, source, mine)
    return environment.from_string(template).render(
        title=title,
        license=license,
        size=next((name for limit, name in SIZES if examples < limit), "n>1M"),
        features=[(field.name, TYPES[field.type]) for field in schema],
        examples=examples,
        version=version("rlt-data"),
        figures=_list_figures(lake, mine),
        runs=[_describe_run(run) for run in runs],
        models=_list_models(runs),
    )


def _list_runs(lake: Lake, source: RunRecord, mine: pl.LazyFrame) -> list[RunRecord]:
    """List the runs whose rows the examples are made of, in the order of the pipeline."""
    ranking = source.counts.get("extra", {}).get("ranking")
    traces = lake.table("traces").scan().join(mine.select("trace_id"), on="trace_id", how="semi")
    questions = lake.table("questions").scan().join(mine.select("question_id"), on="question_id", how="semi")
    ranked = lake.table("rankings").scan().filter(pl.col("run_id") == ranking)
    ranked = ranked.join(mine.select("trace_id"), on="trace_id", how="semi")
    # A reward combined over several students was made of several scores.
    score_ids = pl.col("score_ids").fill_null(pl.concat_list("score_id")).list.explode().alias("score_id")
    used = ranked.select(score_ids).drop_nulls()
    scores = lake.table("scores").scan().join(used, on="score_id", how="semi")
    ids: list[str] = []
    for rows in (questions, traces, scores):
        ids += rows.select(pl.col("run_id").unique().sort()).collect().get_column("run_id").to_list()
    records = {run.run_id: run for run in lake.runs()}
    return [records[run_id] for run_id in (*ids, ranking, source.run_id) if run_id in records]


def _list_figures(lake: Lake, mine: pl.LazyFrame) -> list[tuple[str, str]]:
    """Figures of the examples: counts, tokens, rewards."""
    row = (
        mine.select(
            pl.len().alias("examples"),
            pl.col("question_id").n_unique().alias("questions"),
            pl.col("total_tokens").sum().alias("tokens"),
            pl.col("total_tokens").mean().alias("mean tokens per example"),
            pl.col("total_tokens").max().alias("longest example, tokens"),
            pl.col("over_context").sum().alias("examples over the student's context"),
            pl.col("stands_in_for").count().alias("examples that replace one that was too long"),
            pl.col("reward").mean().alias("mean reward"),
        )
        .collect()
        .row(0, named=True)
    )
    return [(name, _write_figure(value)) for name, value in row.items() if value is not None]


def _write_figure(value: float) -> str:
    """Write a figure with its digits grouped: integers whole, others with four significant digits or more."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _list_models(runs: Sequence[RunRecord]) -> list[Mapping[str, Any]]:
    models: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for run in runs:
        for model in run.models:
            models.setdefault((model["role"], model["model"], model["revision"]), model)
    return [
        {**model, "name": _shorten(model["name"]), "model": _shorten(model["model"])}
        for model in models.values()
    ]


def _describe_run(run: RunRecord) -> dict[str, Any]:
    settings = {
        name: _shorten(value)
        for name, value in run.config.items()
        if name not in OMITTED and value not in (None, [], {})
    }
    return {
        "stage": run.stage,
        "run_id": run.run_id,
        "ended_at": f"{run.ended_at:%Y-%m-%d %H:%M} UTC" if run.ended_at else run.status,
        "settings": settings,
        "inputs": [
            f"{state.table}@{state.version} ({state.rows:,} rows)"
            for state in run.inputs
            if state.version >= 0
        ],
        "outputs": [
            f"{state.table}@{state.version}"
            for state in run.outputs
            if state.table != "rejects" and state.version >= 0
        ],
        "rows_in": run.counts.get("rows_in", 0),
        "rows_out": run.counts.get("rows_out", 0),
        "rejected": run.counts.get("rejected", 0),
        "truncated_share": run.counts.get("truncated_share", 0.0),
        "packages": {
            name: run.packages[name] for name in ("torch", "transformers", "vllm") if name in run.packages
        },
    }


def _shorten(value: Any) -> Any:
    """Keep only the last name of an absolute path: folders of this machine are not published."""
    if isinstance(value, str) and value.startswith("/"):
        return Path(value).name
    if isinstance(value, list):
        return [_shorten(part) for part in value]
    return value


def _write_cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.replace("|", "\\|").replace("\n", " ")
