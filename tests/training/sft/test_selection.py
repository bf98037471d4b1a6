"""What a student learns from: checks of every example, over-long ones, and what the rows tell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from opened_run import open_run
from small_lake import append_made, make_question, make_score, make_trace, read_run
from stages.substitute.test_substitute import write_short_format
from tokenizer_models import SMALL_NAMES, TokenizerModels

from rlt_data.errors import InputError
from rlt_data.lake import Lake
from rlt_data.models import resolve_model
from rlt_data.stages.rank import RankConfig, rank
from rlt_data.stages.substitute import SubstituteConfig, substitute
from rlt_data.terminal import make_visible
from rlt_data.training.sft.config import SftConfig
from rlt_data.training.sft.examples import IGNORED
from rlt_data.training.sft.roles import StudentRole
from rlt_data.training.sft.selection import ExampleSelector
from rlt_data.training.sft.tokenized import TokenizedExamples

pytest.importorskip("trl")


def make_lake(folder: Path, traces: list[dict[str, Any]]) -> Lake:
    """A lake with scored traces, the first sample of each question the best, ranked."""
    lake = Lake(folder / "lake")
    questions = sorted({int(trace["question_id"][1:]) for trace in traces})
    append_made(lake, "ingest", "questions", [make_question(number) for number in questions])
    append_made(lake, "generate", "traces", traces)
    append_made(lake, "score", "scores", [make_score(t, -1.0 - t["sample_index"], exact=0.0) for t in traces])
    rank(lake, RankConfig())
    return lake


def select(
    lake: Lake, folder: Path, model: Path | str, *, format: str | None = None, **options: Any
) -> tuple[TokenizedExamples, Any]:
    """Select the examples of the newest distillation set as a training does; with the run's summary."""
    config = SftConfig(
        role="student",
        model=str(model),
        output=str(folder / "out"),
        format=format or write_short_format(folder),
        **options,
    )
    role, declaration = StudentRole(), StudentRole.declaration
    source = role.find_source(lake, config)
    base = resolve_model(str(model), role="student")
    with open_run(
        lake,
        "sft",
        config,
        pins=declaration.pins,
        outputs=declaration.writes,
        repeats=False,
        identity=source,
    ) as run:
        examples = ExampleSelector(run, config, role, source, base).select()
    return examples, run.summary


LONG = "word " * 130


@pytest.fixture
def long_lake(tmp_path: Path, tiny_model: Path) -> Lake:
    """Question 0: the best trace and the third are too long, the second fits. Question 1 fits. Question 2
    has a long trace alone."""
    traces = [make_trace(0, 0, think=LONG), make_trace(0, 1), make_trace(0, 2, think=LONG), make_trace(1, 0)]
    traces.append(make_trace(2, 0, think=LONG))
    lake = make_lake(tmp_path, traces)
    substitute(
        lake,
        SubstituteConfig(student=str(tiny_model), format=write_short_format(tmp_path), over_context="keep"),
    )
    return lake


def test_over_long_examples_are_dropped_and_named(long_lake: Lake, tmp_path: Path, tiny_model: Path) -> None:
    examples, summary = select(long_lake, tmp_path, tiny_model, max_tokens=400)
    assert len(examples) == summary.extra["examples"] == 1
    assert examples.lengths.max() <= 400
    assert summary.extra["over_long"] == {
        "texts": 2,
        "kept": 0,
        "replaced": 0,
        "dropped": 2,
        "tokens dropped": summary.extra["over_long"]["tokens dropped"],
        "longest": summary.extra["over_long"]["longest"],
    }
    lost = {row["key"]: row for row in read_run(long_lake, "rejects", summary.run_id).to_dicts()}
    distillation = {
        row["example_id"]: row for row in long_lake.table("distillation").scan().collect().to_dicts()
    }
    assert {distillation[key]["trace_id"] for key in lost} == {"q0t0", "q2t0"}
    for key, row in lost.items():
        assert (row["source"], row["reason"]) == ("distillation", "over_length")
        table = json.loads(row["content"])
        assert table == {
            "question_id": distillation[key]["question_id"],
            "trace_id": distillation[key]["trace_id"],
            "tokens": distillation[key]["total_tokens"],
            "limit": 400,
            "reward": pytest.approx(-1.01),
            "replaced_by": None,
        }
    assert summary.extra["over_long"]["tokens dropped"] == sum(
        distillation[key]["total_tokens"] for key in lost
    )


def test_an_over_long_example_is_replaced_by_the_next_best_trace(
    long_lake: Lake, tmp_path: Path, tiny_model: Path
) -> None:
    examples, summary = select(long_lake, tmp_path, tiny_model, max_tokens=400, over_long="next-best")
    assert len(examples) == 2
    assert (summary.extra["over_long"]["replaced"], summary.extra["over_long"]["dropped"]) == (1, 1)
    lost = [json.loads(row["content"]) for row in read_run(long_lake, "rejects", summary.run_id).to_dicts()]
    assert {row["trace_id"]: row["replaced_by"] for row in lost} == {"q0t0": "q0t1", "q2t0": None}
    # In the place of what it replaces, and with the true solution.
    from rlt_data.models import load_tokenizer

    tokenizer = load_tokenizer(resolve_model(str(tiny_model), role="student"))
    texts = [tokenizer.decode(examples.select(i)[0]) for i in range(2)]
    assert make_trace(0, 1)["think"] in texts[0]
    assert make_question(0)["solution"] in texts[0]
    assert make_question(1)["solution"] in texts[1]
    again, _ = select(long_lake, tmp_path, tiny_model, max_tokens=400, over_long="next-best", seed=1)
    assert again.token_ids.tolist() == examples.token_ids.tolist()


def test_over_long_examples_are_kept_whole(long_lake: Lake, tmp_path: Path, tiny_model: Path) -> None:
    """TRL would truncate them at 1,024 tokens, and its packing at the row's length."""
    examples, summary = select(long_lake, tmp_path, tiny_model, max_tokens=400, over_long="keep")
    assert len(examples) == 3
    assert summary.extra["over_long"]["kept"] == 2
    assert not read_run(long_lake, "rejects", summary.run_id).height
    totals = long_lake.table("distillation").scan().collect()["total_tokens"].to_list()
    assert sorted(examples.lengths.tolist()) == sorted(totals)


def test_what_exceeds_the_context_cannot_be_kept(tmp_path: Path, tiny_model: Path) -> None:
    lake = make_lake(tmp_path, [make_trace(0, 0, think="word " * 900), make_trace(1, 0)])
    format = write_short_format(tmp_path)
    substitute(lake, SubstituteConfig(student=str(tiny_model), format=format, over_context="keep"))
    with pytest.raises(InputError, match=r"context is 1,024, so it cannot be kept whole") as refused:
        select(lake, tmp_path, tiny_model, over_long="keep")
    (example,) = lake.table("distillation").scan().filter(trace_id="q0t0").collect()["example_id"]
    assert f"example {example}:" in str(refused.value.where)
    assert "⟦" in str(refused.value.where)


def test_a_training_with_replacements_ends(long_lake: Lake, tmp_path: Path, tiny_model: Path) -> None:
    from rlt_data.training.sft.stage import train_sft

    config = SftConfig(
        role="student",
        model=str(tiny_model),
        output=str(tmp_path / "out"),
        format=write_short_format(tmp_path),
        max_tokens=400,
        over_long="next-best",
        packing=True,
        trainer={"use_cpu": True, "gradient_checkpointing": False, "max_steps": 1},
    )
    summary = train_sft(long_lake, config)
    assert (summary.extra["examples"], summary.extra["over_long"]["replaced"]) == (2, 1)
    assert summary.extra["packed_rows"] == 1


def save_with_template(source: Path, folder: Path, template: str) -> Path:
    """Save the tiny model with another chat template."""
    shutil.copytree(source, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_a_prompt_that_inference_would_send_otherwise_is_refused_with_the_row(
    tmp_path: Path, tiny_model: Path
) -> None:
    """The template ends with "th" and the format begins with "e answer": the prompt's last token is never
    seen in training."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}{{ ' th' if m.role == 'assistant' else '\n' }}"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    model = save_with_template(tiny_model, tmp_path / "model", template)
    format = tmp_path / "joined.toml"
    format.write_text(
        'base = "stratos"\n[teacher]\nsystem = "T"\n[student]\nsystem = "Think."\nthink_open = "e answer: "\n'
    )
    lake = make_lake(tmp_path, [make_trace(0, 0)])
    substitute(lake, SubstituteConfig(student=str(model), format=str(format)))
    with pytest.raises(InputError, match="a token crosses the end of the prompt") as refused:
        select(lake, tmp_path, model, format=str(format))
    (example,) = lake.table("distillation").scan().collect()["example_id"]
    assert f"example {example}:" in str(refused.value.where)
    assert "⟦ the⟧" in str(refused.value.where), "the offending part is marked"
    assert f"example_id <> '{example}'" in str(refused.value.remedy)


def test_an_end_token_inside_the_thinking_is_noted_with_its_row(
    tokenizer_models: TokenizerModels, tmp_path: Path
) -> None:
    """prime-rl appends the end token only where there is none anywhere; here the final one always counts."""
    model = tokenizer_models.save("plain")
    lake = make_lake(tmp_path, [make_trace(0, 0, think="So</s> 14."), make_trace(1, 0)])
    substitute(lake, SubstituteConfig(student=str(model), control_tokens="keep"))
    examples, summary = select(lake, tmp_path, model, format="stratos")
    end = tokenizer_models.load("plain").eos_token_id
    for index in range(2):
        tokens, labels = examples.select(index)
        assert tokens[-1] == labels[-1] == end
    (example,) = lake.table("distillation").scan().filter(trace_id="q0t0").collect()["example_id"]
    (note,) = [note for note in summary.notes if "before their end" in note]
    assert note.startswith("1 of 2 texts contain the end token '</s>'")
    assert example in note


def test_thinking_that_the_template_would_strip_from_messages_is_noted_with_its_row(
    tokenizer_models: TokenizerModels, tmp_path: Path
) -> None:
    """Templates such as Qwen3's keep what follows the last </think>: a quoted tag loses all before it."""
    model = tokenizer_models.save("strips_thinking")
    think = "They write </think> at the end. So 14.\n\n"
    lake = make_lake(tmp_path, [make_trace(0, 0), make_trace(1, 0, think=think)])
    substitute(lake, SubstituteConfig(student=str(model)))
    examples, summary = select(lake, tmp_path, model, format="stratos")
    (example,) = lake.table("distillation").scan().filter(trace_id="q1t0").collect()["example_id"]
    (note,) = [note for note in summary.notes if "because of tags" in note]
    assert "the thinking of 1 of 2 examples" in note
    assert example in note
    text = tokenizer_models.load("strips_thinking").decode(examples.select(1)[0])
    assert think in text, "the training text has all of it"


def test_an_example_whose_texts_are_gone_is_rejected(tmp_path: Path, tiny_model: Path) -> None:
    lake = make_lake(tmp_path, [make_trace(0, 0)])
    summary = substitute(lake, SubstituteConfig(student=str(tiny_model), format=write_short_format(tmp_path)))
    (row,) = read_run(lake, "distillation", summary.run_id).drop("run_id").to_dicts()
    append_made(
        lake,
        "substitute",
        "distillation",
        [row | {"example_id": f"e{i}", "trace_id": t} for i, t in enumerate(("q0t0", "gone"))],
    )
    examples, summary = select(lake, tmp_path, tiny_model)
    assert len(examples) == 1
    (reject,) = read_run(lake, "rejects", summary.run_id).to_dicts()
    assert (reject["reason"], reject["key"]) == ("unknown_trace", "e1")


def test_control_characters_of_a_refused_row_are_shown_as_text(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Coloured on a terminal by this program alone."""
    from rlt_data.console import VisibleConsole
    from rlt_data.models import load_tokenizer
    from rlt_data.training.sft.checks.display import draw_flaw
    from rlt_data.training.sft.checks.examples import Flaw
    from rlt_data.training.sft.examples import Explained, build_student_examples

    tokenizer = load_tokenizer(resolve_model(str(tiny_model), role="student"))
    from rlt_data.formats import load_format

    (example,) = build_student_examples(
        load_format("stratos"), tokenizer, [Explained("Q", "S", "a\x1b]0;evil\x07b [red]c[/red]")]
    )
    drawn = draw_flaw(example, Flaw("wrong", None, example.rendered.spans["think"]))
    console = VisibleConsole()
    console._force_terminal, console._color_system = True, 1
    with console.capture() as capture:
        console.print(drawn, soft_wrap=True)
    text = capture.get()
    assert "\x1b[" in text, "coloured"
    assert "\x1b]0" not in text
    assert "\\x1b]0;evil\\x07b [red]c[/red]" in text
    assert "evil" in make_visible(drawn.plain)


@pytest.mark.parametrize("format", ["stratos", "r1"])
@pytest.mark.parametrize("name", [*SMALL_NAMES, "qwen3", "deepseek_v3"])
def test_every_template_and_tokenizer_gives_examples_that_hold_the_laws(
    tokenizer_models: TokenizerModels, tmp_path: Path, name: str, format: str
) -> None:
    """The prompt of inference token for token, then labels to the end token, with all of the thinking."""
    from rlt_data.formats import load_format, render_student_prompt

    model, tokenizer = tokenizer_models.save(name), tokenizer_models.load(name)
    thinks = ["First 1.\n\nThen 14.\n\n", " \u4e2d\u6587 <think> e\u0301", "</think> then\n"]
    lake = make_lake(tmp_path, [make_trace(i, 0, think=think) for i, think in enumerate(thinks)])
    substitute(lake, SubstituteConfig(student=str(model), format=format, control_tokens="keep"))
    examples, _ = select(lake, tmp_path, model, format=format)
    assert len(examples) == 3
    for index, think in enumerate(thinks):
        tokens, labels = examples.select(index)
        first = int((labels != IGNORED).argmax())
        prompt = render_student_prompt(load_format(format), tokenizer, make_question(index)["question"])
        assert tokens[:first].tolist() == tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
        assert (labels[first:] == tokens[first:]).all()
        assert tokens[-1] == tokenizer.eos_token_id
        assert tokenizer.backend_tokenizer.normalizer is not None or think in tokenizer.decode(tokens[first:])
