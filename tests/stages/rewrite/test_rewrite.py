"""The rewrite stage over a real lake: rows and their parents, selection, identity, resume, failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from engines.openai.fault_server import MODEL, FaultServer, Plan
from engines.scoring_lake import EXPLANATIONS, build_scoring_lake

from rlt_data.errors import EngineError, LakeError, StageStoppedError, UsageError
from rlt_data.lake import Lake
from rlt_data.lake.row_lineage import LineageNode, trace_row
from rlt_data.stages.rewrite import RewriteConfig, rewrite

SHORT = "length(think) < 1000"
QUICK = {"attempts": 2, "backoff": 0.01, "concurrency": 4, "ready_timeout": 5.0}


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    path = tmp_path / "prompt.txt"
    path.write_text("Clean up this explanation of {question}:\n[[{think}]]", encoding="utf-8")
    return path


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return build_scoring_lake(tmp_path / "lake")


def shout(prompt: str) -> str:
    """Answer with the explanation of the prompt in capitals, after some thinking."""
    return f"<think>Capitals.</think>\n\n{prompt.partition('[[')[2].partition(']]')[0].upper()}"


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(lambda prompt: Plan(), answer=shout) as running:
        yield running


def make_config(server: FaultServer, path: Path, tokenizer: Path, **options: Any) -> RewriteConfig:
    defaults: dict[str, Any] = {
        "model": MODEL,
        "prompt": str(path),
        "base_url": server.base_url,
        "tokenizer": str(tokenizer),
        "engine_options": dict(QUICK),
        "where": SHORT,
        "max_tokens": 64,
    }
    return RewriteConfig(**{**defaults, **options})


def read_rewritten(lake: Lake) -> list[dict[str, Any]]:
    return lake.table("traces").scan().filter(origin="rewritten").sort("trace_id").collect().to_dicts()


def test_each_row_has_its_parent_and_the_rewritten_text(
    lake: Lake, server: FaultServer, prompt: Path, tiny_model: Path
) -> None:
    before = {row["trace_id"]: row for row in lake.table("traces").scan().collect().to_dicts()}
    summary = rewrite(lake, make_config(server, prompt, tiny_model))
    rows = read_rewritten(lake)
    assert summary.rows_out == summary.rows_in == len(rows) == 6
    assert len({row["trace_id"] for row in rows}) == 6
    assert len({row["generation_id"] for row in rows}) == 1
    for row in rows:
        parent = before[row["parent_trace_id"]]
        assert row["think"] == parent["think"].upper()
        assert row["completion"].startswith("<think>Capitals.</think>")
        assert (row["state"], row["truncated"], row["teacher"]) == ("closed", False, MODEL)
        for name in ("question_id", "sample_index", "format"):
            assert row[name] == parent[name]
        # They belong to another prompt than a teacher's, so scoring must not use them.
        assert row["completion_logprobs"] is None
        assert row["completion_token_ids"] is None
    # The parents stay as they were, and have none.
    after = lake.table("traces").scan().filter(pl.col("origin") != "rewritten").collect().to_dicts()
    assert {row["trace_id"]: row for row in after} == before
    assert {row["parent_trace_id"] for row in after} == {None}


def test_it_is_finished_the_second_time_and_never_rewrites_its_own_rows(
    lake: Lake, server: FaultServer, prompt: Path, tiny_model: Path
) -> None:
    config = make_config(server, prompt, tiny_model, where="length(think) < 50")
    first = rewrite(lake, config)
    asked = sum(server.served.values())
    second = rewrite(lake, config)
    assert (second.run_id, sum(server.served.values())) == (first.run_id, asked)
    # Another selection over the same rows asks only for what is missing, and for no rewritten trace.
    wider = rewrite(lake, make_config(server, prompt, tiny_model))
    assert wider.rows_out == 2
    assert len(read_rewritten(lake)) == 6
    assert "4 traces of this rewriting were already in the lake" in wider.notes


def test_the_text_of_the_prompt_identifies_it_and_not_its_path(
    lake: Lake, server: FaultServer, prompt: Path, tiny_model: Path, tmp_path: Path
) -> None:
    first = rewrite(lake, make_config(server, prompt, tiny_model))
    copy = tmp_path / "copy.txt"
    copy.write_bytes(prompt.read_bytes())
    assert rewrite(lake, make_config(server, copy, tiny_model)).run_id == first.run_id
    copy.write_text("Do it otherwise: [[{think}]]", encoding="utf-8")
    assert rewrite(lake, make_config(server, copy, tiny_model)).run_id != first.run_id
    assert len(read_rewritten(lake)) == 12


def test_system_prompt_and_placeholders_reach_the_model(
    lake: Lake, server: FaultServer, tiny_model: Path, tmp_path: Path
) -> None:
    document = tmp_path / "prompt.toml"
    document.write_text(
        'system = "You are an editor."\nuser = "{question}|{solution}|{completion}|{think}"\n',
        encoding="utf-8",
    )
    server.answer = lambda prompt: "Fine."
    rewrite(lake, make_config(server, document, tiny_model, limit=1))
    (asked,) = server.served
    assert "You are an editor." in asked
    assert any(f"?|The answer is 14.|{text}|{text}" in asked for text in EXPLANATIONS)
    # A server with chat completions only gets the same as messages.
    chat = {**QUICK, "api": "chat"}
    rewrite(lake, make_config(server, document, tiny_model, limit=1, engine_options=chat, seed=1))
    messages = server.bodies[-1]["messages"]
    assert [message["role"] for message in messages] == ["system", "user"]
    assert messages[0]["content"] == "You are an editor."


def test_what_cannot_be_rewritten_is_rejected_by_name(
    lake: Lake, server: FaultServer, prompt: Path, tiny_model: Path
) -> None:
    row = lake.table("traces").scan().head(1).collect()
    orphan = row.with_columns(trace_id=pl.lit("orphan"), think=pl.lit(None, pl.String))
    lake.table("traces").append(orphan.drop("run_id"), run_id="other")
    server.plan = lambda text: Plan(("refused",), forever=True) if "It is so." in text else Plan()
    config = make_config(server, prompt, tiny_model, where=f"{SHORT} OR think IS NULL")
    summary = rewrite(lake, config)
    rejects = lake.table("rejects").scan().collect().to_dicts()
    assert sorted(row["reason"] for row in rejects) == ["http_400", "http_400", "missing_text"]
    assert summary.rows_in == summary.rows_out + 3
    # They are not asked again by the same run.
    asked = sum(server.tries.values())
    assert rewrite(lake, config).run_id == summary.run_id
    assert sum(server.tries.values()) == asked


def test_answers_without_an_explanation_are_rows_with_their_state(
    lake: Lake, server: FaultServer, prompt: Path, tiny_model: Path
) -> None:
    server.answer = lambda text: "<think>I think and think" if "It is so." in text else ""
    rewrite(lake, make_config(server, prompt, tiny_model))
    states = sorted(row["state"] for row in read_rewritten(lake))
    assert states == ["empty"] * 4 + ["missing_close"] * 2


def test_too_many_truncated_answers_stop_it(
    lake: Lake, server: FaultServer, prompt: Path, tiny_model: Path
) -> None:
    server.plan = lambda text: Plan(("length",), forever=True)
    with pytest.raises(StageStoppedError, match="answers"):
        rewrite(lake, make_config(server, prompt, tiny_model))
    assert len(read_rewritten(lake)) == 6
    summary = rewrite(lake, make_config(server, prompt, tiny_model, allow_truncated=True))
    assert summary.truncated == 6


def test_a_server_that_dies_leaves_a_run_that_resumes(
    lake: Lake, server: FaultServer, prompt: Path, tiny_model: Path
) -> None:
    def answer(text: str) -> str:
        if len(server.served) > 3:
            server.broken = True
        return shout(text)

    server.answer = answer
    config = make_config(server, prompt, tiny_model, engine_options={**QUICK, "concurrency": 1})
    with pytest.raises(EngineError):
        rewrite(lake, config)
    (run,) = [run for run in lake.runs() if run.stage == "rewrite"]
    assert not run.finished
    assert 0 < len(read_rewritten(lake)) < 6
    server.broken, server.answer = False, shout
    summary = rewrite(lake, config)
    assert summary.run_id == run.run_id
    assert summary.rows_out == len(read_rewritten(lake)) == 6


def test_a_ranking_selects_the_traces(
    lake: Lake, server: FaultServer, prompt: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from rlt_data.stages.rank.config import RankConfig
    from rlt_data.stages.rank.stage import rank

    ranked = rank(lake, RankConfig(policy="random(1)", where=SHORT))
    rewrite(lake, make_config(server, prompt, tiny_model, ranking=ranked.run_id, where=None))
    chosen = lake.table("rankings").scan().filter(pl.col("selected")).collect().get_column("trace_id")
    assert sorted(row["parent_trace_id"] for row in read_rewritten(lake)) == sorted(chosen)
    with pytest.raises(LakeError, match="no run"):
        rewrite(lake, make_config(server, prompt, tiny_model, ranking="ffffffffffff"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "false"}, "no trace"),
        ({"where": "nothing = 1"}, "not valid SQL"),
        ({"prompt": "missing.txt"}, "no such file"),
    ],
)
def test_what_cannot_be_done_is_refused_before_a_run_is_recorded(
    lake: Lake, server: FaultServer, prompt: Path, tiny_model: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        rewrite(lake, make_config(server, prompt, tiny_model, **options))
    assert not lake.runs()


def test_a_local_model_rewrites_too(lake: Lake, prompt: Path, tiny_model: Path) -> None:
    config = RewriteConfig(
        model=str(tiny_model),
        prompt=str(prompt),
        where=SHORT,
        engine="transformers",
        device="cpu",
        max_tokens=8,
        allow_truncated=True,
    )
    assert rewrite(lake, config).rows_out == 6
    revisions = {row["teacher_revision"] for row in read_rewritten(lake)}
    assert len(revisions) == 1
    assert None not in revisions


def test_lineage_leads_through_the_parent(
    lake: Lake, server: FaultServer, prompt: Path, tiny_model: Path
) -> None:
    rewrite(lake, make_config(server, prompt, tiny_model))
    row = read_rewritten(lake)[0]
    node = trace_row(lake, row["trace_id"])
    assert node is not None
    found = {each.name: each for each in list_nodes(node)}
    assert found["parent"].key == row["parent_trace_id"]
    assert found["parent"].facts["origin"] == "imported"
    assert [each.name for each in list_nodes(found["parent"])].count("question") == 1


def list_nodes(node: LineageNode) -> list[LineageNode]:
    """List a node and all that led to it."""
    return [node, *(each for origin in node.origins for each in list_nodes(origin))]
