"""Ingest: every row becomes a question, a trace or a reject; none is lost or stored twice."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlt_data.errors import InputError, UsageError
from rlt_data.lake import Lake
from rlt_data.sources.identity import identify_question, normalize_text
from rlt_data.stages.ingest import IngestConfig, ingest
from rlt_data.stages.runtime.run import StageSummary
from rlt_data.tasks.countdown import check_expression, read_puzzle

FILES = ("gsm8k_test.jsonl", "math500.jsonl", "aime24.jsonl", "skyt1_27b_math500.jsonl")
STATES = {
    "traces_closed": 194,
    "traces_missing_close": 94,
    "traces_missing_open": 212,
    "traces_without_think": 210,
}

Line = dict[str, Any] | str | bytes


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def ingest_rows(lake: Lake, tmp_path: Path) -> Callable[..., StageSummary]:
    """Write lines to a file and ingest it."""

    def run(*rows: Line, name: str = "rows.jsonl", force: bool = False, **options: Any) -> StageSummary:
        (tmp_path / name).write_bytes(b"\n".join(map(write_line, rows)))
        return ingest(lake, IngestConfig(source=str(tmp_path / name), **options), force=force)

    return run


def write_line(row: Line) -> bytes:
    text = json.dumps(row) if isinstance(row, dict) else row
    return text if isinstance(text, bytes) else text.encode()


def collect(lake: Lake, table: str) -> pl.DataFrame:
    return lake.table(table).scan().collect()


def list_reasons(lake: Lake) -> list[tuple[int | None, str]]:
    rejects = collect(lake, "rejects").sort("source_row", "reason")
    return list(rejects.select("source_row", "reason").iter_rows())


# Real files


def test_the_real_files_are_ingested_whole(lake: Lake, shared_data: Path) -> None:
    summaries = {name: ingest(lake, IngestConfig(source=str(shared_data / name))) for name in FILES}
    tables = {name: summary.tables for name, summary in summaries.items()}
    assert tables == {
        "gsm8k_test.jsonl": {"questions": 1319, "traces": 0},
        "math500.jsonl": {"questions": 500, "traces": 0},
        "aime24.jsonl": {"questions": 30, "traces": 0},
        "skyt1_27b_math500.jsonl": {"questions": 0, "traces": 500, "rejects": 500},
    }
    questions = collect(lake, "questions")
    assert questions.get_column("question_id").n_unique() == questions.height == 1849
    assert Counter(questions.get_column("dataset")) == {"gsm8k": 1319, "math500": 500, "aime": 30}
    assert questions.get_column("answer").null_count() == 0
    assert questions.get_column("solution_rendered").sum() == 30
    assert set(questions.get_column("source")) == set(FILES[:3])
    # The trace file repeats MATH-500's questions and agrees with its answers.
    assert {reason for _, reason in list_reasons(lake)} == {"duplicate"}
    traces = collect(lake, "traces")
    math = questions.filter(pl.col("dataset") == "math500").get_column("question_id")
    assert set(traces.get_column("question_id")) == set(math)


def test_the_real_traces_are_graded_and_parsed(lake: Lake, shared_data: Path) -> None:
    summary = ingest(lake, IngestConfig(source=str(shared_data / FILES[3])))
    assert summary.tables == {"questions": 500, "traces": 500}
    assert {name: summary.extra[name] for name in STATES} == STATES
    assert any("traces without tags: 210" in note for note in summary.notes)
    traces = collect(lake, "traces")
    assert traces.get_column("grade").sum() == 300
    assert set(traces.get_column("origin")) == {"imported"}
    assert set(traces.get_column("sample_index")) == {0}
    published = [json.loads(line) for line in (shared_data / FILES[3]).read_text("utf-8").splitlines()]
    assert set(traces.get_column("completion")) == {row["completion"] for row in published}
    closed = traces.filter(pl.col("state") == "closed")
    for completion, think, solution in closed.select("completion", "think", "trace_solution").iter_rows():
        before, _, after = completion.partition("<|begin_of_thought|>\n\n")
        assert not before.strip()
        assert after.startswith(think + "<|end_of_thought|>")
        assert "<|begin_of_solution|>" + solution in after
    assert closed.get_column("think").str.len_chars().min() > 400
    cut = traces.filter(pl.col("state") == "missing_close")
    for completion, think in cut.select("completion", "think").iter_rows():
        assert completion == "<|begin_of_thought|>\n\n" + think
    questions = collect(lake, "questions")
    assert set(questions.get_column("solution_rendered")) == {True}
    metadata = [json.loads(text) for text in questions.sort("source_row").get_column("metadata")]
    assert metadata == [{"idx": row["idx"], "level": row["level"], "pred": row["pred"]} for row in published]


def test_a_directory_of_different_layouts_is_one_run(lake: Lake, shared_data: Path, tmp_path: Path) -> None:
    # The directory also has files without problems: tokenizers.
    folder = tmp_path / "problems"
    folder.mkdir()
    for file in (*shared_data.glob("*.jsonl"), shared_data / "README.md"):
        (folder / file.name).write_bytes(file.read_bytes())
    summary = ingest(lake, IngestConfig(source=str(folder)))
    # In the order of names the AIME file comes first and the trace file last.
    assert summary.rows_in == 2349
    assert summary.tables == {"questions": 1849, "traces": 500, "rejects": 500}
    assert "skipped files that are not data: README.md" in summary.notes
    again = ingest(lake, IngestConfig(source=str(folder)))
    assert (again.status, again.run_id) == ("already finished", summary.run_id)
    assert lake.table("questions").count() == 1849


# Bad rows

GOOD = {"question": "What is 2 + 2?", "solution": "Add: \\boxed{4}.", "answer": "4", "trace": "Two and two."}
BAD: list[tuple[str, Line]] = [
    ("missing_question", {"solution": "s"}),
    ("missing_question", {"question": "  \n", "solution": "s"}),
    ("missing_solution", {"question": "no solution"}),
    ("missing_solution", {"question": "blank solution", "solution": " ", "answer": None}),
    ("malformed_json", '{"question": "cut off'),
    ("malformed_json", "not json"),
    ("not_an_object", "[1, 2]"),
    ("duplicate_key", '{"question": "a", "question": "b", "solution": "s"}'),
    ("encoding_error", b'{"question": "\xff\xff", "solution": "s"}'),
    ("encoding_error", '{"question": "half \\ud800", "solution": "s"}'),
    ("wrong_type", {"question": ["a", "b"], "solution": "s"}),
    ("wrong_type", {"question": "object", "solution": {"text": "s"}}),
    ("over_long_question", {"question": "q" * 201, "solution": "s"}),
    ("over_long_solution", {"question": "long solution", "solution": "s" * 301}),
    ("duplicate", GOOD),
    ("duplicate", {**GOOD, "question": " What is 2 + 2?\r\n", "trace": "Another way."}),
    ("duplicate", {**GOOD, "solution": None, "trace": None}),
    ("conflicting_duplicate", {**GOOD, "solution": "Guess: \\boxed{5}.", "answer": "5", "trace": None}),
]
LIMITS = {"max_question_characters": 200, "max_solution_characters": 300, "max_trace_characters": 400}


def test_every_kind_of_bad_row_is_rejected_with_file_row_reason_and_content(
    lake: Lake, ingest_rows: Callable[..., StageSummary]
) -> None:
    rows = [GOOD, *(row for _, row in BAD), {"question": "after", "answer": 7, "trace": "t" * 401}]
    summary = ingest_rows(*rows, **LIMITS)
    assert summary.rows_in == len(rows)
    assert summary.tables["questions"] == 2
    expected = [(number, reason) for number, (reason, _) in enumerate(BAD, start=1)]
    # The first repetition has the same trace again, the last good row one that is too long.
    expected += [(15, "duplicate_trace"), (len(rows) - 1, "over_long_trace")]
    assert list_reasons(lake) == sorted(expected)
    assert summary.extra["questions_rejected"] == len(BAD)
    assert summary.extra["traces_rejected"] == 2
    rejects = collect(lake, "rejects")
    assert set(rejects.get_column("source")) == {"rows.jsonl"}
    assert set(rejects.get_column("stage")) == {"ingest"}
    assert all(detail.strip() for detail in rejects.get_column("detail"))
    of_questions = rejects.filter(~pl.col("reason").str.ends_with("trace"))
    contents = dict(of_questions.select("source_row", "content").iter_rows())
    for number, (reason, row) in enumerate(BAD, start=1):
        written = write_line(row)
        if reason in ("malformed_json", "not_an_object", "duplicate_key") or isinstance(row, bytes):
            assert contents[number] == written.decode("utf-8", "backslashreplace")
        else:
            assert json.loads(contents[number]) == json.loads(written)
    # The trace of a question that was repeated belongs to the existing one.
    traces = collect(lake, "traces").sort("sample_index")
    assert list(traces.get_column("completion")) == ["Two and two.", "Another way."]
    assert set(traces.get_column("question_id")) == {identify_question(str(GOOD["question"]))}


def test_existing_questions_take_precedence_over_new_rows(
    lake: Lake, ingest_rows: Callable[..., StageSummary]
) -> None:
    ingest_rows(GOOD)
    other = {"problem": GOOD["question"], "solution": "Count: \\boxed{4}.", "level": 1}
    repeated = {"question": GOOD["question"], "completion": "<think>\nNew.</think>4"}
    ingest_rows(other, {"problem": "new", "solution": "s"}, name="math.jsonl")
    summary = ingest_rows(repeated, name="outputs.jsonl")
    assert summary.tables == {"questions": 0, "traces": 1, "rejects": 1}
    questions = collect(lake, "questions")
    assert sorted(questions.get_column("question")) == [GOOD["question"], "new"]
    assert sorted(collect(lake, "rejects").get_column("reason")) == ["conflicting_duplicate", "duplicate"]
    keys = set(collect(lake, "rejects").get_column("key"))
    assert keys == {identify_question(str(GOOD["question"]))}
    assert sorted(collect(lake, "traces").get_column("think")) == ["New.", "Two and two."]


def test_only_bad_rows_is_a_finished_run(lake: Lake, ingest_rows: Callable[..., StageSummary]) -> None:
    summary = ingest_rows("broken", "{broken too")
    assert (summary.status, summary.rows_in, summary.tables["questions"]) == ("finished", 2, 0)
    assert summary.extra["rejected_malformed_json"] == 2
    empty = ingest_rows(name="empty.jsonl")
    assert (empty.status, empty.rows_in) == ("finished", 0)
    assert empty.notes == ["no row could be read from empty.jsonl"]


def test_an_unreadable_file_is_an_error_alone_and_a_reject_among_others(lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "broken.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(InputError, match=r"broken\.parquet"):
        ingest(lake, IngestConfig(source=str(folder / "broken.parquet")))
    assert lake.runs() == []
    (folder / "good.jsonl").write_text(json.dumps(GOOD), "utf-8")
    summary = ingest(lake, IngestConfig(source=str(folder)))
    assert summary.tables == {"questions": 1, "traces": 1, "rejects": 1}
    assert list_reasons(lake) == [(None, "unreadable")]


def test_an_ambiguous_layout_writes_nothing(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(GOOD), "utf-8")
    (tmp_path / "b.jsonl").write_text(json.dumps({"prompt": "p", "response": "r"}), "utf-8")
    with pytest.raises(UsageError, match=r"prompt, response(.|\n)*b.jsonl"):
        ingest(lake, IngestConfig(source=str(tmp_path)))
    assert lake.table("questions").count() == 0
    assert lake.runs() == []


# Choices


def test_columns_are_mapped(lake: Lake, ingest_rows: Callable[..., StageSummary]) -> None:
    mapping = {"question": "prompt", "solution": "response"}
    ingest_rows({"prompt": "p", "response": "r \\boxed{1}", "tag": "x"}, map=mapping)
    (row,) = collect(lake, "questions").to_dicts()
    assert (row["question"], row["solution"], row["answer"], row["dataset"]) == (
        "p",
        "r \\boxed{1}",
        "1",
        "plain",
    )
    assert json.loads(row["metadata"]) == {"tag": "x"}


def test_the_content_decides_whether_it_was_ingested_before(
    lake: Lake, ingest_rows: Callable[..., StageSummary]
) -> None:
    first = ingest_rows(GOOD)
    assert ingest_rows(GOOD, name="moved.jsonl").status == "already finished"
    assert ingest_rows(GOOD, layout="plain").status == "already finished"
    assert ingest_rows(GOOD, limit=1).run_id != first.run_id
    forced = ingest_rows(GOOD, force=True)
    assert forced.tables == {"questions": 0, "traces": 0, "rejects": 2}
    assert lake.table("questions").count() == lake.table("traces").count() == 1


def test_the_first_rows_may_be_ingested_alone(lake: Lake, ingest_rows: Callable[..., StageSummary]) -> None:
    rows = [{"question": str(number), "answer": "1"} for number in range(20)]
    assert ingest_rows(*rows, limit=7).rows_in == 7
    assert sorted(collect(lake, "questions").get_column("source_row")) == list(range(7))


def test_answers_without_solutions_are_rendered_by_the_given_template(
    lake: Lake, ingest_rows: Callable[..., StageSummary]
) -> None:
    ingest_rows({"question": "q", "answer": 12}, solution_template="Therefore {answer}.")
    (row,) = collect(lake, "questions").to_dicts()
    assert (row["solution"], row["solution_rendered"], row["answer"]) == ("Therefore 12.", True, "12")
    with pytest.raises(ValueError, match="solution_template"):
        IngestConfig(source="x", solution_template="no placeholder")


def test_untagged_traces_may_be_stored_as_thinking(
    lake: Lake, ingest_rows: Callable[..., StageSummary]
) -> None:
    row = {"question": "q", "answer": "4", "completion": "Just talk."}
    # Also later, when the same file was ingested without the option.
    assert "--untagged think" in " ".join(ingest_rows(row).notes)
    ingest_rows(row, untagged="think", teacher="somebody")
    unknown, whole = collect(lake, "traces").sort("think", nulls_last=False).to_dicts()
    assert (unknown["think"], unknown["state"]) == (None, "missing_open")
    assert (whole["think"], whole["state"], whole["teacher"]) == ("Just talk.", "missing_open", "somebody")


def test_a_users_own_tags_are_recognized_when_ingested(
    lake: Lake, ingest_rows: Callable[..., StageSummary], tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nbase = "r1"\n[student]\nthink_open = "<reason>"\nthink_close = "</reason>"\n', "utf-8"
    )
    row = {"question": "q", "answer": "4", "completion": "<reason>\nAdd.</reason>\n\nIt is 4."}
    ingest_rows(row, format=str(tmp_path / "mine.toml"))
    (trace,) = collect(lake, "traces").to_dicts()
    assert (trace["think"], trace["trace_solution"], trace["state"]) == ("Add.", "It is 4.", "closed")


def test_several_traces_of_a_row_count_up(lake: Lake, ingest_rows: Callable[..., StageSummary]) -> None:
    rows = [
        {"question": "q", "solution": "4", "thinking_trajectories": ["a", "b"], "attempt": "4"},
        {"question": "q", "solution": "4", "thinking_trajectories": ["c", "a"], "attempt": "4"},
    ]
    ingest_rows(*rows)
    traces = collect(lake, "traces").sort("sample_index")
    assert list(traces.select("sample_index", "think").iter_rows()) == [(0, "a"), (1, "b"), (2, "c")]


def test_problems_are_generated(lake: Lake) -> None:
    pytest.importorskip("reasoning_gym")
    config = IngestConfig(source="reasoning-gym:countdown", size=12, seed=5, options={"max_numbers": "4"})
    summary = ingest(lake, config)
    assert summary.tables["questions"] == 12
    assert ingest(lake, config).status == "already finished"
    questions = collect(lake, "questions").sort("source_row")
    assert set(questions.get_column("dataset")) == {"countdown"}
    assert set(questions.get_column("source")) == {"reasoning-gym:countdown"}
    for answer, solution, rendered, metadata in questions.select(
        "answer", "solution", "solution_rendered", "metadata"
    ).iter_rows():
        assert solution == f"The answer is \\boxed{{{answer}}}."
        assert rendered
        puzzle = read_puzzle(json.loads(metadata))
        assert puzzle is not None
        assert check_expression(answer, puzzle) is None


# Laws

TEXTS = st.text(alphabet=st.characters(codec="utf-8"), max_size=30)
ROWS = st.one_of(
    st.fixed_dictionaries({"question": TEXTS, "solution": TEXTS}),
    st.fixed_dictionaries({"question": TEXTS, "answer": TEXTS | st.integers() | st.floats() | st.none()}),
    st.fixed_dictionaries({"question": TEXTS, "completion": TEXTS, "answer": TEXTS}),
    st.fixed_dictionaries({"question": st.lists(TEXTS, max_size=2) | st.none() | st.booleans()}),
    st.sampled_from([GOOD, {**GOOD, "solution": "other"}]),
).map(lambda row: json.dumps(row).encode())
LINES = st.lists(ROWS | st.binary(max_size=20), max_size=25)
MANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@MANY
@given(LINES)
def test_every_row_becomes_a_question_or_a_reject(lines: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(b"\n".join([json.dumps(GOOD).encode(), *lines]))
        lake = Lake(Path(folder) / "lake")
        summary = ingest(lake, IngestConfig(source=str(path), layout="plain"))
        assert summary.rows_in == summary.tables["questions"] + summary.extra.get("questions_rejected", 0)
        assert summary.rejected == summary.extra.get("questions_rejected", 0) + summary.extra.get(
            "traces_rejected", 0
        )
        rows = [*collect(lake, "questions").get_column("source_row"), *(n for n, _ in list_reasons(lake))]
        assert set(rows) == set(range(summary.rows_in))
        ids = collect(lake, "questions").get_column("question_id")
        assert ids.n_unique() == len(ids)


@MANY
@given(
    st.lists(TEXTS.filter(str.strip), unique_by=normalize_text), st.sampled_from(["json", "jsonl", "parquet"])
)
def test_the_lake_gives_back_the_very_texts(texts: list[str], suffix: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{suffix}"
        rows = [{"question": text, "solution": text[::-1] + "."} for text in texts]
        if suffix == "parquet":
            pl.DataFrame(rows, schema={"question": pl.String, "solution": pl.String}).write_parquet(path)
        else:
            path.write_text(
                json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows)), "utf-8"
            )
        lake = Lake(Path(folder) / "lake")
        ingest(lake, IngestConfig(source=str(path)))
        questions = collect(lake, "questions").sort("source_row")
        assert list(questions.get_column("question")) == texts
        assert list(questions.get_column("solution")) == [text[::-1] + "." for text in texts]
        for question, key in questions.select("question", "question_id").iter_rows():
            assert key == identify_question(unicodedata.normalize("NFD", question))
