"""Score, rank, substitute and training examples, under published and small tokenizers, in both formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opened_run import open_run
from small_lake import MadeConfig, append_made, make_question, make_trace, read_run
from tokenizer_models import PUBLISHED_NAMES, TokenizerModels

from rlt_data.errors import ModelError
from rlt_data.formats import (
    BUILT_IN,
    check_template,
    encode_texts,
    load_built_in,
    render_student_text,
    render_teacher_prompt,
    render_teacher_text,
    select_token_span,
)
from rlt_data.lake import Lake
from rlt_data.stages.rank import RankConfig, rank
from rlt_data.stages.score import ScoreConfig, score
from rlt_data.stages.substitute import SubstituteConfig, substitute

ROWS = [
    ("First 3,\nthen 4 more.\n\nSo 7.\n", "3 + 4 = 7. The answer is \\boxed{7}."),
    (" \u4e2d\u6587: 12 apples and <think> a </think> tag.\n", "12"),
    ("Na\u00efve cafe\u0301 \U0001f600\n", " The answer is \\boxed{1/2}. "),
]
NAMES = [*PUBLISHED_NAMES, "strips_thinking", "refuses_system", "adds_default_system"]


def make_questions() -> list[dict[str, Any]]:
    return [{**make_question(i), "solution": solution} for i, (_, solution) in enumerate(ROWS)]


def make_lake(folder: Path) -> Lake:
    lake = Lake(folder / "lake")
    append_made(lake, "ingest", "questions", make_questions())
    append_made(
        lake, "generate", "traces", [make_trace(i, 0, think=think) for i, (think, _) in enumerate(ROWS)]
    )
    return lake


def compute_logprobs(model: Any, ids: list[int], tokens: range) -> list[float]:
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0] / 0.7
    logprobs = logits.log_softmax(dim=-1)
    return [float(logprobs[i - 1, ids[i]]) for i in tokens]


@pytest.mark.parametrize("format_name", BUILT_IN)
@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_the_parts_and_examples_hold_them(
    tokenizer_models: TokenizerModels, tmp_path: Path, name: str, format_name: str
) -> None:
    from transformers import AutoModelForCausalLM

    directory, tokenizer = str(tokenizer_models.save(name)), tokenizer_models.load(name)
    format = load_built_in(format_name)
    lake = make_lake(tmp_path)
    scored = score(lake, ScoreConfig(students=(directory,), teacher=directory, format=format_name))
    assert (scored.rows_out, scored.rejected) == (3, 0), read_run(lake, "rejects", scored.run_id)[
        "detail"
    ].to_list()
    expected_notes = check_template(format, tokenizer, "student", name=directory)
    assert set(expected_notes) <= set(scored.notes)

    model = AutoModelForCausalLM.from_pretrained(directory, dtype="float32").eval()
    for row in read_run(lake, "scores", scored.run_id).sort("trace_id").to_dicts():
        number = int(row["question_id"][1:])
        think, solution = ROWS[number]
        question = make_question(number)["question"]
        student = render_student_text(format, tokenizer, question, think, solution)
        teacher = render_teacher_text(
            format, tokenizer, question, solution, think, closing=format.teacher.close
        )
        for rendered, part, column in (
            (student, "solution", "solution_logprobs"),
            (student, "think", "think_student_logprobs"),
            (teacher, "think", "think_teacher_logprobs"),
        ):
            encoded = encode_texts(tokenizer, [rendered.text])[0]
            tokens = select_token_span(encoded.offsets, rendered.spans[part])
            assert row[column] == pytest.approx(compute_logprobs(model, encoded.token_ids, tokens), abs=1e-3)
        spans = zip(row["think_token_starts"], row["think_token_ends"], strict=True)
        assert all(0 <= first < last <= len(think) for first, last in spans)

    rank(lake, RankConfig())
    substituted = substitute(lake, SubstituteConfig(student=directory, format=format_name))
    assert set(expected_notes) <= set(substituted.notes)
    examples = read_run(lake, "distillation", substituted.run_id).sort("trace_id").to_dicts()
    assert len(examples) == 3
    for number, example in enumerate(examples):
        think, solution = ROWS[number]
        question = make_question(number)["question"]
        assert example["text"] == render_student_text(format, tokenizer, question, think, solution).text
        assert think in example["text"]
        assert think in example["messages"][-1]["content"]


@pytest.mark.parametrize("format_name", BUILT_IN)
@pytest.mark.parametrize("name", NAMES)
def test_training_examples_teach_what_follows_the_prompt(
    tokenizer_models: TokenizerModels, tmp_path: Path, name: str, format_name: str
) -> None:
    pytest.importorskip("trl")
    from rlt_data.training.rl.config import GrpoConfig
    from rlt_data.training.rl.questions import select_questions
    from rlt_data.training.sft.checks.examples import check_example
    from rlt_data.training.sft.examples import (
        IGNORED,
        Explained,
        build_student_examples,
        build_teacher_examples,
    )

    tokenizer, format = tokenizer_models.load(name), load_built_in(format_name)
    rows = [
        Explained(make_question(i)["question"], solution, think) for i, (think, solution) in enumerate(ROWS)
    ]
    for build in (build_teacher_examples, build_student_examples):
        for row, example in zip(rows, build(format, tokenizer, rows), strict=True):
            text, begin = example.rendered.text, example.rendered.spans["prompt"][1]
            labeled = [i for i, label in enumerate(example.labels) if label != IGNORED]
            assert [example.labels[i] for i in labeled] == [example.token_ids[i] for i in labeled]
            assert labeled == list(range(labeled[0], len(example.labels)))
            assert example.labels[-1] == tokenizer.eos_token_id
            assert row.think in text[begin:]
            assert example.offsets[labeled[0] - 1][0] < begin <= example.offsets[labeled[0]][0]
            assert example.is_aligned == (example.offsets[labeled[0]][0] == begin)
            if build is build_teacher_examples and example.is_aligned:
                check_example(example, tokenizer, format, closing=format.teacher.close)

    lake = make_lake(tmp_path)
    for reward in ("rlt", "correctness"):
        config = GrpoConfig(
            model=str(tokenizer_models.save(name)),
            students=("none",) if reward == "rlt" else (),
            output=str(tmp_path / "out"),
            format=format_name,
            reward={"type": reward},
        )
        identity = tokenizer_models.identify(name)
        made = MadeConfig(label=reward)
        with open_run(lake, "grpo", made, inputs=("questions",), outputs=("rollouts",)) as run:
            questions = select_questions(run, config, identity, format)
        for number, question in enumerate(questions):
            think, solution = ROWS[number]
            if reward == "rlt":
                prompt = render_teacher_prompt(format, tokenizer, question.question, solution).text
                assert question.prompt == prompt
                assert question.prompt.endswith(format.teacher.prefill.replace("{solution}", solution))
            else:
                whole = render_student_text(format, tokenizer, question.question, think, solution)
                assert whole.text.startswith(question.prompt)
                assert whole.spans["assistant"][0] == len(question.prompt)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_template_that_loses_a_message_is_refused_before_a_row_is_scored(
    tokenizer_models: TokenizerModels, tmp_path: Path, role: str
) -> None:
    import shutil

    good, bad = tokenizer_models.save("plain"), tmp_path / "bad"
    shutil.copytree(good, bad)
    (bad / "chat_template.jinja").write_text("{{ messages[-1].content }}</s>", encoding="utf-8")
    lake = make_lake(tmp_path)
    config = (
        ScoreConfig(students=(str(good), str(bad)), teacher=str(good), format="r1")
        if role == "student"
        else ScoreConfig(students=(str(good),), teacher=str(bad), format="r1")
    )
    with pytest.raises(ModelError, match="drops or rewrites the user message"):
        score(lake, config)
    assert lake.table("scores").count() == 0
