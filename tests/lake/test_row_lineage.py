"""The lineage of a row: from an evaluation back to the teacher's training and the source row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import QuickProgram
from evaluated_lake import make_evaluation
from lineage_lake import WEIGHTS, Chain, make_chain

from rlt_data.errors import LakeError
from rlt_data.lake import LineageNode

EVALUATION = make_evaluation("student", "countdown", "q0", 0, model_revision=WEIGHTS["student"])[
    "evaluation_id"
]
UNSEEN = make_evaluation("student", "countdown", "unseen", 0, model_revision=WEIGHTS["student"])[
    "evaluation_id"
]


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return make_chain(tmp_path)


def walk(node: LineageNode) -> Iterator[LineageNode]:
    yield node
    for origin in node.origins:
        yield from walk(origin)


def find(node: LineageNode, name: str) -> list[LineageNode]:
    return [found for found in walk(node) if found.name == name]


def follow(node: LineageNode, *names: str) -> LineageNode:
    for name in names:
        node = next(origin for origin in node.origins if origin.name == name)
    return node


def test_an_evaluation_leads_to_the_teachers_training_and_the_source(chain: Chain) -> None:
    root = chain.lake.row_lineage(EVALUATION)
    assert root is not None
    assert (root.name, root.key) == ("evaluation", EVALUATION)
    assert follow(root, "grade").facts["verdict"] == "correct"
    assert follow(root, "question").facts == {"source": "/some/where/made.jsonl", "source_row": 0}
    assert follow(root, "written by").key == chain.runs["evaluate"]
    rl = follow(root, "model", "trained by")
    assert (rl.key, rl.facts) == (chain.runs["rl"], {"stage": "grpo", "steps": 7})
    sft = follow(rl, "base", "trained by")
    assert (sft.key, sft.facts["steps"]) == (chain.runs["sft"], 12)
    examples = follow(sft, "distillation set")
    assert examples.facts == {"run": chain.runs["set"], "examples": 2, "has_this_question": True}
    ranking = follow(examples, "ranking")
    assert ranking.facts == {"run": chain.runs["rank"], "policy": "best-of-n(1)"}
    assert follow(ranking, "scores").facts == {"rows": 2, "student": "student", "run": chain.runs["score"]}
    traces = follow(examples, "traces")
    assert (traces.facts, follow(traces, "written by").key) == ({"rows": 2}, chain.runs["generate"])
    teacher = follow(traces, "teacher", "trained by")
    assert (teacher.key, teacher.facts) == (chain.runs["teacher"], {"stage": "grpo", "steps": 125})
    assert follow(examples, "source").facts == {"source": "/some/where/made.jsonl", "questions": 2}


def test_it_is_shown_whether_the_student_learned_from_the_question(chain: Chain) -> None:
    root = chain.lake.row_lineage(UNSEEN)
    assert root is not None
    (examples,) = find(root, "distillation set")
    assert examples.facts["has_this_question"] is False


def test_a_set_that_was_not_recorded_is_the_newest_before_the_training(tmp_path: Path) -> None:
    chain = make_chain(tmp_path, records_set=False)
    root = chain.lake.row_lineage(EVALUATION)
    assert root is not None
    (examples,) = find(root, "distillation set")
    assert examples.facts["run"] == chain.runs["set"]
    row = chain.lake.sql("select distinct distillation_run from evaluation_lineage where model = 'student'")
    assert row.to_pylist() == [{"distillation_run": chain.runs["set"]}]


def test_an_example_leads_to_its_score_and_the_row_of_its_source(chain: Chain) -> None:
    root = chain.lake.row_lineage("example-q1t0")
    assert root is not None
    ranking = follow(root, "ranking")
    assert (ranking.key, ranking.facts["rank"]) == ("ranking-q1t0", 1)
    assert follow(ranking, "score").facts["run"] == chain.runs["score"]
    trace = follow(root, "trace")
    assert follow(trace, "teacher", "trained by").key == chain.runs["teacher"]
    question = follow(trace, "question")
    assert question.facts == {"dataset": "made", "source": "/some/where/made.jsonl", "source_row": 1}
    assert follow(question, "written by").key == chain.runs["ingest"]


def test_a_model_from_elsewhere_ends_the_line(chain: Chain) -> None:
    key = make_evaluation("base", "countdown", "q0", 0, model_revision=WEIGHTS["base"])["evaluation_id"]
    root = chain.lake.row_lineage(key)
    assert root is not None
    assert follow(root, "model").origins == ()
    assert not find(root, "grade")


def test_prefixes_of_ids(chain: Chain) -> None:
    found = chain.lake.row_lineage("example-q1")
    assert found is not None
    assert found.key == "example-q1t0"
    with pytest.raises(LakeError, match="several rows of distillation begin with"):
        chain.lake.row_lineage("example-")
    assert chain.lake.row_lineage("zzz") is None


def test_the_view_has_one_row_an_evaluation(chain: Chain) -> None:
    rows = chain.lake.sql("select * from evaluation_lineage order by model, question_id").to_pylist()
    base, seen, unseen = rows
    assert seen["evaluation_id"] == EVALUATION
    assert (seen["verdict"], seen["task"], seen["question_id"]) == ("correct", "countdown", "q0")
    assert seen["student_runs"] == [chain.runs["rl"], chain.runs["sft"]]
    assert (seen["distillation_run"], seen["examples"]) == (chain.runs["set"], 2)
    assert seen["ranking_run"] == chain.runs["rank"]
    assert (seen["score_runs"], seen["trace_runs"]) == ([chain.runs["score"]], [chain.runs["generate"]])
    assert (seen["teachers"], seen["teacher_revisions"]) == (["teacher"], [WEIGHTS["teacher"]])
    assert (seen["teacher_runs"], seen["teacher_steps"]) == ([chain.runs["teacher"]], [125])
    assert seen["training_sources"] == ["/some/where/made.jsonl"]
    assert (seen["evaluate_run"], seen["source_row"]) == (chain.runs["evaluate"], 0)
    assert (seen["question_in_set"], unseen["question_in_set"]) == (True, False)
    for name in ("verdict", "student_runs", "distillation_run", "teacher_runs", "question_in_set"):
        assert base[name] is None


def test_rewritten_traces_lead_to_those_that_they_were_made_from(tmp_path: Path) -> None:
    chain = make_chain(tmp_path, rewritten=True)
    example = chain.lake.row_lineage("example-q0t1")
    assert example is not None
    parent = follow(example, "trace", "parent")
    assert (parent.key, follow(parent, "written by").key) == ("q0t0", chain.runs["generate"])
    assert follow(parent, "teacher", "trained by").key == chain.runs["teacher"]
    root = chain.lake.row_lineage(EVALUATION)
    assert root is not None
    groups = [node for node in find(root, "traces") if node.facts["rows"] == 2]
    assert {follow(node, "written by").key for node in groups} == {
        chain.runs["generate"],
        chain.runs["rewrite"],
    }
    _, seen, _ = chain.lake.sql("select * from evaluation_lineage order by model, question_id").to_pylist()
    assert seen["examples"] == 2
    assert seen["trace_runs"] == sorted([chain.runs["generate"], chain.runs["rewrite"]])
    assert seen["teachers"] == ["base", "teacher"]
    assert (seen["teacher_runs"], seen["teacher_steps"]) == ([chain.runs["teacher"]], [125])


def test_the_command_shows_a_row_and_an_evaluate_run(chain: Chain, quick: QuickProgram) -> None:
    shown = quick.succeed("lineage", EVALUATION)
    order = [
        "evaluation",
        "grade",
        "correct",
        "grpo",
        "sft",
        "ranking",
        "scores",
        "traces",
        "steps 125",
        "source",
    ]
    positions = [shown.index(word, 0) for word in order[:3]]
    assert positions == sorted(positions)
    assert all(word in shown for word in order)
    found = json.loads(quick.succeed("lineage", EVALUATION, "--json"))
    assert (found["name"], found["key"]) == ("evaluation", EVALUATION)
    tree = quick.succeed("lineage", chain.runs["evaluate"])
    assert tree.index("evaluate") < tree.index("grpo") < tree.index("sft") < tree.index("substitute")
    assert "no run(s) begin with 'nothing'" in quick.fail(1, "lineage", "nothing")
