"""Lineage of one row: an evaluation, example, trace or question, back to the models and the source row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from rlt_data.errors import LakeError
from rlt_data.lake.catalog import Catalog
from rlt_data.lake.lineage import find_makers
from rlt_data.lake.runs import RunRecord, list_runs, sort_by_end

ROW_TABLES = ("evaluations", "distillation", "traces", "questions")
"""The tables whose rows have a lineage; their keys are tried in this order."""

_SHORTEST_PREFIX = 6
_DEEPEST = 32


@dataclass(frozen=True)
class LineageNode:
    """One step back from a row: a row, a run, a model, or a group of rows that one run wrote.

    `name` is what it is, `key` its id where it has one, `facts` what else is known; `origins` led to it.
    """

    name: str
    key: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    origins: Sequence[LineageNode] = ()


def trace_row(catalog: Catalog, key: str) -> LineageNode | None:
    """Return the lineage of the row whose key is `key`, or begins with it; None where there is none.

    Rows are read at the newest versions of their tables. Raises `LakeError` where several rows match.
    """
    for table in ROW_TABLES:
        found = _find_key(catalog, table, key)
        if found is None:
            continue
        tracer = _Tracer(catalog)
        match table:
            case "evaluations":
                return tracer.trace_evaluation(found)
            case "distillation":
                return tracer.trace_example(found)
            case "traces":
                return tracer.trace_trace(found)
            case _:
                return tracer.trace_question(found)
    return None


def _find_key(catalog: Catalog, table: str, key: str) -> str | None:
    stored = catalog.table(table)
    column = pl.col(stored.schema.key)
    exact = stored.collect(stored.scan().select(column).filter(column == key))
    if exact.height:
        return key
    if len(key) < _SHORTEST_PREFIX:
        return None
    matching = stored.collect(stored.scan().select(column).filter(column.str.starts_with(key)).head(2))
    if matching.height > 1:
        raise LakeError(f"several rows of {table} begin with {key!r}", remedy="give more of the id")
    return str(matching.item()) if matching.height else None


class _Tracer:
    """Reads what leads back from rows; `runs` are all runs of the lake, read once."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._runs = {record.run_id: record for record in list_runs(catalog)}
        finished = sort_by_end(catalog, [record for record in self._runs.values() if record.finished])
        self._order = {record.run_id: position for position, record in enumerate(finished)}
        # Of runs that trained the same weights, the newest.
        self._trainings = {
            str(revision): record
            for record in finished
            if (revision := record.counts.get("extra", {}).get("revision")) is not None
        }

    def trace_evaluation(self, key: str) -> LineageNode:
        """Return an evaluation with its grades, its question's source, and its model."""
        row = self._read("evaluations", key)
        grades = self._select("grades", pl.col("evaluation_id") == key, *_GRADE_COLUMNS)
        origins = [
            LineageNode(
                "grade",
                facts={name: grade[name] for name in ("verdict", "grader", "extraction", "extracted_answer")}
                | {"run": grade["run_id"]},
            )
            for grade in grades.sort(
                "primary", "grader", "extraction", descending=[True, False, True]
            ).to_dicts()
        ]
        origins.append(LineageNode("question", row["question_id"], _take(row, "source", "source_row")))
        origins.append(self._run_node(row["run_id"]))
        origins.append(self._model_node("model", row["model"], row["model_revision"], row["question_id"]))
        facts = _take(row, "task", "sample_index", "finish_reason")
        return LineageNode("evaluation", key, facts, origins)

    def trace_example(self, key: str) -> LineageNode:
        """Return a distillation example with its rank, the scores behind it, and its trace."""
        row = self._read("distillation", key)
        run = self._runs.get(row["run_id"])
        origins = [self._run_node(row["run_id"])]
        ranking = _read_extra(run, "ranking")
        if ranking is not None:
            mine = (pl.col("run_id") == ranking) & (pl.col("trace_id") == row["trace_id"])
            by = _read_extra(run, "ranked_by")
            if by is not None:
                mine &= pl.col("student") == by
            ranks = self._select("rankings", mine, *_RANKING_COLUMNS).sort("ranking_id")
            origins += map(self._rank_node, ranks.to_dicts())
        origins.append(self.trace_trace(row["trace_id"]))
        return LineageNode("example", key, _take(row, "rank", "reward", "total_tokens"), origins)

    def trace_trace(self, key: str, *, name: str = "trace", depth: int = 0) -> LineageNode:
        """Return a trace with the model that wrote it, the trace that it was made from, and its question."""
        if (row := self._read("traces", key, missing=True)) is None:
            return LineageNode(name, key, {"missing": True})
        origins = [self._run_node(row["run_id"])]
        if row["teacher"] is not None or row["teacher_revision"] is not None:
            origins.append(self._model_node("teacher", row["teacher"], row["teacher_revision"]))
        if row["parent_trace_id"] is not None and depth < _DEEPEST:
            origins.append(self.trace_trace(row["parent_trace_id"], name="parent", depth=depth + 1))
        else:
            origins.append(self.trace_question(row["question_id"]))
        return LineageNode(name, key, _take(row, "origin", "sample_index", "state"), origins)

    def trace_question(self, key: str) -> LineageNode:
        """Return a question with the row of its source."""
        if (row := self._read("questions", key, missing=True)) is None:
            return LineageNode("question", key, {"missing": True})
        facts = _take(row, "dataset", "source", "source_row")
        return LineageNode("question", key, facts, [self._run_node(row["run_id"])])

    def _rank_node(self, rank: Mapping[str, Any]) -> LineageNode:
        ids = rank["score_ids"] or ([rank["score_id"]] if rank["score_id"] else [])
        scores = self._select("scores", pl.col("score_id").is_in(ids), *_SCORE_COLUMNS).sort("score_id")
        origins = [
            LineageNode(
                "score", score["score_id"], _take(score, "student", "reward") | {"run": score["run_id"]}
            )
            for score in scores.to_dicts()
        ]
        facts = _take(rank, "rank", "group_size", "policy", "reward") | {"run": rank["run_id"]}
        return LineageNode("ranking", rank["ranking_id"], facts, origins)

    def _model_node(
        self,
        role: str,
        name: str | None,
        revision: str | None,
        question: str | None = None,
        *,
        depth: int = 0,
    ) -> LineageNode:
        """Return a model with the run of this lake that trained it, and what it was trained from."""
        facts = {"name": name, "revision": revision}
        training = self._trainings.get(revision or "")
        if training is None or depth == _DEEPEST:
            return LineageNode(role, None, facts)
        base = training.models[0] if training.models else None
        origins = []
        if base is not None and base["revision"] != revision:
            origins.append(
                self._model_node("base", base["name"], base["revision"], question, depth=depth + 1)
            )
        source = self._find_distillation(training)
        if source is not None:
            origins.append(self._set_node(source, question, depth, learned=_read_extra(training, "examples")))
        steps = {"steps": _read_extra(training, "optimiser_steps")}
        run = LineageNode(
            "trained by", training.run_id, {"stage": training.stage, **_drop_empty(steps)}, origins
        )
        return LineageNode(role, None, facts, [run])

    def _find_distillation(self, training: RunRecord) -> RunRecord | None:
        """Find the run of `substitute` whose examples a training learned from; None where it read none."""
        reads = "distillation" in {state.table for state in training.inputs}
        if not reads or training.stage != "sft" or training.config.get("role") != "student":
            return None
        named = _read_extra(training, "distillation") or training.config.get("distillation")
        makers = [
            self._runs[maker]
            for maker in find_makers(self._catalog, training, self._runs)["distillation"]
            if maker in self._order
        ]
        if named is not None:
            makers = [maker for maker in makers if maker.run_id.startswith(str(named))]
        return max(makers, key=lambda maker: self._order[maker.run_id], default=None)

    def _set_node(self, run: RunRecord, question: str | None, depth: int, *, learned: Any) -> LineageNode:
        """Return a distillation set: its ranking and scores, who wrote its traces, and its sources.

        `learned` is how many of its examples the training used.
        """
        examples = self._select("distillation", pl.col("run_id") == run.run_id, "question_id", "trace_id")
        facts: dict[str, Any] = {"run": run.run_id, "examples": examples.height}
        if learned is not None and learned != examples.height:
            facts["learned"] = learned
        if question is not None:
            facts["has_this_question"] = question in examples.get_column("question_id")
        origins = []
        ranking = self._runs.get(_read_extra(run, "ranking") or "")
        if ranking is not None:
            origins.append(self._ranking_node(ranking, examples))
        traces = self._read_with_parents(examples)
        groups = traces.group_by("run_id", "teacher", "teacher_revision").len().sort("run_id", "teacher")
        for group in groups.to_dicts():
            teacher = self._model_node(
                "teacher", group["teacher"], group["teacher_revision"], depth=depth + 1
            )
            node = self._run_node(group["run_id"])
            origins.append(
                LineageNode(
                    "traces", None, {"rows": group["len"]}, [node, teacher] if group["teacher"] else [node]
                )
            )
        questions = self._join("questions", "question_id", examples, "source").group_by("source").len()
        origins += [
            LineageNode("source", None, {"source": row["source"], "questions": row["len"]})
            for row in questions.sort("source").to_dicts()
        ]
        return LineageNode("distillation set", None, facts, origins)

    def _read_with_parents(self, examples: pl.DataFrame) -> pl.DataFrame:
        """Read who wrote the traces of examples, and the traces that these were made from."""
        columns = ("run_id", "teacher", "teacher_revision", "parent_trace_id")
        found = [self._join("traces", "trace_id", examples, *columns)]
        while len(found) <= _DEEPEST:
            parents = found[-1].select(trace_id="parent_trace_id").drop_nulls()
            if not parents.height:
                break
            found.append(self._join("traces", "trace_id", parents, *columns))
        return pl.concat(found)

    def _ranking_node(self, ranking: RunRecord, examples: pl.DataFrame) -> LineageNode:
        rows = self._select("rankings", pl.col("run_id") == ranking.run_id, *_RANKING_COLUMNS)
        used = rows.join(examples, on="trace_id", how="semi")
        ids = pl.coalesce("score_ids", pl.concat_list("score_id"))
        keys = used.select(ids.alias("score_id")).explode("score_id").drop_nulls()
        scores = (
            self._join("scores", "score_id", keys, "run_id", "student").group_by("run_id", "student").len()
        )
        origins = [
            LineageNode("scores", None, {"rows": row["len"], "student": row["student"], "run": row["run_id"]})
            for row in scores.sort("run_id", "student").to_dicts()
        ]
        policy = {"policy": ranking.config.get("policy")}
        return LineageNode("ranking", None, {"run": ranking.run_id, **_drop_empty(policy)}, origins)

    def _run_node(self, run_id: str) -> LineageNode:
        run = self._runs.get(run_id)
        facts = {"missing": True} if run is None else {"stage": run.stage, "status": run.status}
        return LineageNode("written by", run_id, facts)

    def _read(self, table: str, key: str, *, missing: bool = False) -> Any:
        """Read the row of a key; None where it is absent and may be `missing`."""
        stored = self._catalog.table(table)
        rows = stored.collect(stored.scan().filter(pl.col(stored.schema.key) == key)).to_dicts()
        return None if missing and not rows else rows[0]

    def _select(self, table: str, predicate: pl.Expr, *columns: str) -> pl.DataFrame:
        stored = self._catalog.table(table)
        return stored.collect(stored.scan().filter(predicate).select(columns))

    def _join(self, table: str, key: str, rows: pl.DataFrame, *columns: str) -> pl.DataFrame:
        """Read `columns` of those rows of `table` whose `key` is among that of `rows`."""
        stored = self._catalog.table(table)
        return stored.collect(stored.scan().join(rows.lazy(), on=key, how="semi").select(columns))


_GRADE_COLUMNS = ("primary", "verdict", "grader", "extraction", "extracted_answer", "run_id")
_RANKING_COLUMNS = (
    "ranking_id", "trace_id", "rank", "group_size", "policy", "reward", "score_id", "score_ids", "run_id",
)  # fmt: skip
_SCORE_COLUMNS = ("score_id", "student", "reward", "run_id")


def _take(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return _drop_empty({name: row[name] for name in names})


def _drop_empty(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


def _read_extra(run: RunRecord | None, name: str) -> Any:
    return None if run is None else run.counts.get("extra", {}).get(name)
