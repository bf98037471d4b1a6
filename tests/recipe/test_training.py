"""Recipes that train a model: what is read, refused and planned, and training from scratch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Program, QuickProgram

from rlt_data.errors import UsageError
from rlt_data.formats import load_format
from rlt_data.lake import Lake
from rlt_data.recipe.load import load_recipe
from rlt_data.recipe.training import load_training, run_training_recipe
from rlt_data.recipe.training_plan import plan_training
from rlt_data.recipe.training_schema import StudentRecipe, TeacherRecipe
from rlt_data.training.from_scratch.arithmetic_model import build_chain_tokenizer
from rlt_data.training.from_scratch.tiny_model import TinyShape, build_tiny_model, save_model

SMALL = """
output = "out"
teacher = "fresh"
students = ["fresh"]

[fresh]
examples = 48
batch_size = 12
epochs = 1
shape = { hidden_size = 32, heads = 2, key_value_heads = 2, feed_forward = 48, context = 512 }

[ingest]
source = "arithmetic:chain_sum"
size = 24

[sft.trainer]
max_steps = 2
per_device_train_batch_size = 8
gradient_checkpointing = false

[grpo]
steps = 2
questions_per_step = 2
group_size = 4
max_tokens = 8
max_prompt_tokens = 200
save_every = 1

[grpo.trainer]
learning_rate = 1e-3
gradient_checkpointing = false
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def test_sections_share_the_keys_of_the_recipe(recipe: Path) -> None:
    loaded = load_training([recipe], ["seed=3", "grpo.reward.lambda_kl=0.5", "format=r1"])
    recipe = loaded.recipe
    assert isinstance(recipe, TeacherRecipe)
    sft = recipe.make_sft(recipe.resolve_name(recipe.base))
    grpo = recipe.make_grpo("elsewhere")
    assert (sft.model, sft.format, sft.seed) == ("out/fresh", "r1", 3)
    assert (grpo.model, grpo.students, grpo.seed) == ("elsewhere", ("out/fresh",), 3)
    assert grpo.reward.lambda_kl == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grpo]\nstep = 3", "step"),
        ("[grpo.reward]\nlamda_kl = 3", "lamda_kl"),
        ("[fresh]\nterm = 3", "term"),
        ("[sft]\ntrainer = 3", "trainer"),
    ],
)
def test_unknown_keys_are_named_with_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(f'output = "o"\nteacher = "t"\nstudents = ["s"]\n{text}\n')
    with pytest.raises(UsageError) as refused:
        load_training([path])
    assert message in str(refused.value)
    assert "wrong.toml:" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "trains nothing"),
        ("[grpo]\nsteps = 1", "needs a student"),
        ('students = ["fresh"]\n[grpo]\nsteps = 1', r"no \[fresh\]"),
        (
            'students = ["s"]\n[grpo]\nteacher_logprobs = "sampled"\n[grpo.reward]\nestimator = "full"',
            "full",
        ),
    ],
)
def test_recipes_that_make_no_sense_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(f'output = "o"\nteacher = "t"\n{text}\n')
    with pytest.raises(UsageError, match=message):
        load_training([path])


def test_the_output_of_a_built_in_recipe_does_not_hide_it(tmp_path: Path, monkeypatch: Any) -> None:
    """Run the same command again: the output of teacher-cpu has the recipe's name."""
    monkeypatch.chdir(tmp_path)
    Path(load_training(["teacher-cpu"]).recipe.output).mkdir()
    assert load_training(["teacher-cpu"]).recipe.output == "teacher-cpu"


def test_a_dry_run_shows_steps_memory_and_refusals(recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    lake = Lake(tmp_path / "lake")
    plan = plan_training(load_training([recipe]), lake)
    assert plan["refused"] == []
    assert plan["sections"]["grpo"]["completions"] == "16 in all, at most 128 tokens"
    assert "8" in plan["sections"]["grpo"]["passes"]
    assert plan["sections"]["grpo"]["memory in all"].startswith("about ")
    assert plan["sections"]["sft"]["texts per step"] == "8, in 1 process"
    assert plan["sections"]["sft"]["optimizer steps"] == "2"
    assert plan["recipe"]["grpo"]["reward"]["alpha"] == 0.01
    assert lake.table("runs").count() == 0
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ("grpo.max_tokens=400", "the teacher's context is 512"),
        ("grpo.trainer.sync_ref_model=true", "without beta"),
        ("grpo.trainer.learning_rat=1", "learning_rat"),
        ("sft.trainer.packin=true", "packin"),
        ("sft.trainer.max_length=9", "decided by sft.max_tokens"),
        ("sft.trainer.packing=true", "decided by sft.packing"),
        ("grpo.trainer.beta='0.04'", "beta should be a valid number"),
        ("grpo.trainer.loss_type=dappo", "did you mean 'dapo'"),
        ("grpo.trainer.report_to=wandbb", "did you mean 'wandb'"),
        ("grpo.trainer.report_to=['swanlab']", "pip install swanlab"),
        ("grpo.teacher_logprobs=reference", "without beta there is no reference model"),
        ("sft.trainer.learning_rate=1e17", "learning_rate should be above 0 and at most 1, found 1e+17"),
        ("sft.trainer.learning_rate=-1.0", "learning_rate should be above 0 and at most 1, found -1.0"),
        ("grpo.trainer.learning_rate=2.0", "learning_rate should be above 0 and at most 1, found 2.0"),
        ("sft.trainer.adam_beta2=7.0", "adam_beta2 should be at least 0 and below 1, found 7.0"),
        ("grpo.trainer.adam_beta2=7.0", "adam_beta2 should be at least 0 and below 1, found 7.0"),
        ("grpo.trainer.weight_decay=1e9", "weight_decay should be from 0 to 100"),
        ("sft.trainer.max_grad_norm=-1.0", "max_grad_norm should be from 0 to"),
        ("format=r2", "r2"),
        ("grpo.micro_batch_size=3", "do not divide"),
        ("teacher=no-such-model", "no-such-model"),
    ],
)
def test_a_dry_run_lists_what_would_be_refused(
    recipe: Path, tmp_path: Path, change: str, refusal: str
) -> None:
    pytest.importorskip("trl")
    plan = plan_training(load_training([recipe], [change]), Lake(tmp_path / "lake"))
    assert any(refusal in text for text in plan["refused"]), plan["refused"]


def test_a_dry_run_measures_absent_models_by_the_registry(tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("trl")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    plan = plan_training(load_training(["teacher-7b"]), Lake(tmp_path / "lake"), processes=8)
    assert plan["sections"]["sft"]["texts per step"] == "16, in 8 processes"
    assert plan["sections"]["grpo"]["passes"] == "128 of 1 completions per step, in each of 8 processes"
    assert plan["sections"]["grpo"]["memory: trained weights"] == "14.19 GiB"
    assert plan["sections"]["grpo"]["memory: logits of one chunk"] == "148.5 MiB"
    assert "ZeRO-3" in plan["sections"]["grpo"]["memory in all, sharded"]
    assert plan["sections"]["grpo"]["models not on this machine"].startswith("bespoke7b, qwen7b")
    for model in ("Qwen/Qwen2.5-7B-Instruct", "bespokelabs/Bespoke-Stratos-7B"):
        assert any(model in text for text in plan["refused"])


def test_a_dry_run_refuses_a_student_of_other_tokens(recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from tiny_models import save_tiny_model

    teacher, student = tmp_path / "teacher", save_tiny_model(tmp_path / "student")
    tokenizer = build_chain_tokenizer(load_format("stratos"), terms=3, context=512)
    save_model(build_tiny_model(TinyShape(context=512), tokenizer, seed=0), tokenizer, teacher)
    names = [f"teacher={teacher}", f"students=['{student}']"]
    plan = plan_training(load_training([recipe], names), Lake(tmp_path / "lake"))
    assert any("token by token" in text for text in plan["refused"])
    names.append("grpo.reward.lambda_kl=0.0")
    assert plan_training(load_training([recipe], names), Lake(tmp_path / "lake"))["refused"] == []


def test_the_papers_numbers_are_in_its_recipe() -> None:
    recipe = load_training(["teacher-7b"]).recipe
    assert isinstance(recipe, TeacherRecipe)
    sft, grpo = recipe.make_sft("base"), recipe.make_grpo("elsewhere")
    assert (sft.trainer["num_train_epochs"], sft.trainer["learning_rate"]) == (10, 1e-5)
    assert (grpo.steps, grpo.generation_size, grpo.group_size) == (125, 1024, 64)
    assert (grpo.temperature, grpo.max_prompt_tokens, grpo.max_tokens) == (0.7, 16384, 16384)
    assert (grpo.reward.alpha, grpo.reward.lambda_kl, grpo.reward.penalty) == (0.01, 3.0, -1.0)
    wanted = {"learning_rate": 1e-6, "lr_scheduler_type": "constant", "beta": 0.04, "loss_type": "grpo"}
    wanted |= {"sync_ref_model": True, "ref_model_mixup_alpha": 0.9, "ref_model_sync_steps": 32}
    assert wanted.items() <= grpo.trainer.items()


ARMS = ("rl-alone", "raw", "cleaned", "bespoke", "rlt")


def test_the_arms_of_the_cold_start_differ_in_their_data_only() -> None:
    arms = [load_training([f"cold-start-{arm}"], role="student").recipe for arm in ARMS]
    assert all(isinstance(arm, StudentRecipe) for arm in arms)
    shared = [arm.model_dump(exclude={"output", "rank", "substitute", "sft"}) for arm in arms]
    assert all(other == shared[0] for other in shared)
    assert [step.section for step in arms[0].list_steps()] == ["rl"]
    fine_tuned = [arm.model_dump(include={"sft", "substitute"}) for arm in arms[1:]]
    assert all(other == fine_tuned[0] for other in fine_tuned)
    assert [[step.section for step in arm.list_steps()] for arm in arms[1:]] == [["sft", "rl"]] * 4
    assert len({arm.output for arm in arms}) == 5
    for arm in arms:
        assert isinstance(arm, StudentRecipe)
        assert arm.rl is not None
        # 1 for a correct answer, and no credit besides.
        assert (arm.rl.reward.grader, arm.rl.reward.format_penalty) == ("math", 0.0)


@pytest.mark.parametrize("name", ["cold-start-rl-alone", "cold-start-rlt", "transfer-student", "transfer-rl"])
def test_a_dry_run_of_the_papers_students_misses_nothing_but_their_models(
    name: str, tmp_path: Path, monkeypatch: Any
) -> None:
    pytest.importorskip("trl")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    loaded = load_training([name], role="student")
    plan = plan_training(loaded, Lake(tmp_path / "lake"), processes=8)
    others = [
        text for text in plan["refused"] if "Qwen/Qwen2.5-7B-Instruct" not in text and "vllm" not in text
    ]
    assert others == []
    if "rl" in plan["sections"]:
        assert plan["sections"]["rl"]["passes"] == "128 of 1 completions per step, in each of 8 processes"


def test_wrong_usage_exits_with_2_and_no_traceback(quick: QuickProgram, recipe: Path) -> None:
    pytest.importorskip("trl")
    errors = quick.fail(2, "train-teacher", str(recipe), "--set", "grpo.trainer.betta=1", "--quiet")
    assert "no option 'betta'" in errors
    assert "beta" in errors
    assert not recipe.with_name("out").exists(), "the last section is checked before the first one runs"


def test_a_recipe_of_another_role_names_its_command(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rlt-data train-teacher RECIPE"):
        load_training([recipe], role="student")
    student = tmp_path / "student.toml"
    student.write_text('output = "o"\nstudent = "m"\n[sft]\n')
    for load in (load_training, load_recipe):
        with pytest.raises(UsageError, match="rlt-data train-student RECIPE"):
            load([student])
    with pytest.raises(UsageError, match="unknown key 'grpo'"):
        load_training([student], ["grpo.steps=1"], role="student")


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("", ["sft"]),
        ("[sft]\n[rl]", ["sft", "rl"]),
        ("[rl]", ["rl"]),
        ("sft = false\n[rl]", ["rl"]),
    ],
)
def test_a_student_is_trained_by_the_sections_that_its_recipe_has(
    tmp_path: Path, text: str, sections: list[str]
) -> None:
    path = tmp_path / "student.toml"
    path.write_text(f'output = "out"\nstudent = "base"\n{text}\n')
    recipe = load_training([path], role="student").recipe
    assert [step.section for step in recipe.list_steps()] == sections


def test_a_later_recipe_turns_off_the_sft_of_an_earlier_one(tmp_path: Path) -> None:
    shared, arm = tmp_path / "shared.toml", tmp_path / "arm.toml"
    shared.write_text('output = "out"\nstudent = "base"\n[sft]\nlimit = 3\n[rl]\nsteps = 7\n')
    arm.write_text("sft = false\n")
    recipe = load_training([shared, arm], role="student").recipe
    assert isinstance(recipe, StudentRecipe)
    (step,) = recipe.list_steps()
    config = step.make_config("base")
    assert (config.role, config.model, config.steps) == ("student", "base", 7)


def test_a_dry_run_of_a_students_rl_shows_its_work_and_names_its_keys(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    text = SMALL.replace('teacher = "fresh"\nstudents = ["fresh"]', 'student = "fresh"')
    student = tmp_path / "student.toml"
    student.write_text(text.replace("grpo", "rl"))
    plan = plan_training(load_training([student], ["sft=false"], role="student"), Lake(tmp_path / "lake"))
    assert plan["refused"] == []
    assert plan["sections"]["rl"]["completions"] == "16 in all, at most 128 tokens"
    assert "memory: students" not in plan["sections"]["rl"]
    for change, refusal in (
        ("rl.max_tokens=400", "the student's context is 512: lower rl.max_prompt_tokens or rl.max_tokens"),
        ("rl.trainer.num_generations=3", "decided by rl.group_size"),
        ("rl.micro_batch_size=3", "do not divide"),
        ("rl.task=gpqa_diamond", "cannot be graded by the grader choice"),
        ("rl.task=no-such-task", "there is no task 'no-such-task'"),
    ):
        plan = plan_training(
            load_training([student], ["sft=false", change], role="student"), Lake(tmp_path / "lake")
        )
        assert any(refusal in text for text in plan["refused"]), plan["refused"]


@pytest.mark.timeout(300)
def test_a_student_is_trained_on_the_examples_of_the_lake(quick: QuickProgram, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    lake = ("--lake", str(tmp_path / "lake"))
    tokenizer = build_chain_tokenizer(load_format("stratos"), terms=3, context=512)
    base = tmp_path / "base"
    save_model(build_tiny_model(TinyShape(context=512), tokenizer, seed=0), tokenizer, base)
    quick.succeed("ingest", "arithmetic:chain_sum", "--size", "12", *lake)
    quick.succeed("rank", "--policy", "random(1)", *lake)
    quick.succeed("substitute", "--student", str(base), *lake)
    recipe = tmp_path / "student.toml"
    recipe.write_text(
        f'output = "{tmp_path / "out"}"\nstudent = "{base}"\n'
        "[sft.trainer]\nmax_steps = 2\ngradient_checkpointing = false\nuse_cpu = true\n"
    )
    planned = json.loads(quick.succeed("train-student", str(recipe), "--dry-run", "--json", *lake))
    assert planned["refused"] == []
    assert planned["sections"]["sft"]["texts"] == "12 in the lake now"
    (summary,) = json.loads(quick.succeed("train-student", str(recipe), "--json", *lake))
    assert (summary["stage"], summary["extra"]["examples"]) == ("sft", 12)
    assert (tmp_path / "out" / "student").resolve() == Path(summary["extra"]["model"]).resolve()
    # Continued by RL: it starts from the result of SFT, which is not run again.
    rl = tmp_path / "rl.toml"
    rl.write_text(
        "[rl]\nsteps = 1\nquestions_per_step = 2\ngroup_size = 4\nmax_tokens = 8\nmax_prompt_tokens = 200\n"
        'reward = { grader = "integer" }\ntrainer = { gradient_checkpointing = false, use_cpu = true }\n'
    )
    first, second = json.loads(quick.succeed("train-student", str(recipe), str(rl), "--json", *lake))
    assert (first["status"], second["stage"]) == ("already finished", "grpo")
    assert (tmp_path / "out" / "student").resolve() == Path(second["extra"]["model"]).resolve()
    note = (Path(second["extra"]["model"]) / "rlt_data_training.md").read_text()
    assert json.dumps(first["extra"]["model"]) in note


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_from_scratch_to_a_teacher_that_generates(program: Program, recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    first = json.loads(program.succeed("train-teacher", str(recipe), "--json"))
    assert [summary["stage"] for summary in first] == ["ingest", "sft", "grpo"]
    teacher = tmp_path / "out" / "teacher"
    assert teacher.resolve() == Path(tmp_path / first[-1]["extra"]["model"]).resolve()
    again = json.loads(program.succeed("train-teacher", str(recipe), "--json"))
    assert [summary["status"] for summary in again] == ["already finished"] * 3
    options = ("--engine", "transformers", "--max-tokens", "4", "--limit", "2", "--allow-truncated")
    made = json.loads(program.succeed("generate", "--teacher", str(teacher), *options, "--json"))
    assert made["rows_out"] == 2
    curve = program.succeed(
        "sql", "select step, avg(reward) as reward from rollouts group by step order by step", "-f", "csv"
    )
    assert [line.split(",")[0] for line in curve.splitlines()] == ["step", "0", "1"]
    # From the explanations through the teacher that wrote them to what it was trained on.
    tree = program.succeed("lineage", "generate")
    assert tree.index("grpo") < tree.index("sft") < tree.rindex("ingest")


@pytest.mark.parametrize("base", ["out/teacher", "elsewhere/base"])
def test_a_training_never_replaces_models_that_it_did_not_make(
    recipe: Path, tmp_path: Path, monkeypatch: Any, base: str
) -> None:
    """With output = "models" and teacher = "models/teacher" the base weights were gone after training."""
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "out" / "teacher" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_text("base weights")
    loaded = load_training([recipe], [f"teacher={base}"])
    lake = Lake(tmp_path / "lake")
    with pytest.raises(UsageError, match="set another output"):
        run_training_recipe(loaded, lake)
    assert weights.read_text() == "base weights"
    assert not lake.runs(), "refused before anything ran"
    assert any("set another output" in text for text in plan_training(loaded, lake)["refused"])


def test_a_training_does_not_start_from_its_own_result(
    recipe: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Else the same command would train another model each time."""
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    loaded = load_training([recipe], ["teacher=out/teacher"])
    with pytest.raises(UsageError, match="which the recipe uses"):
        run_training_recipe(loaded, Lake(tmp_path / "lake"))


def test_the_model_of_fresh_replaces_no_other(recipe: Path, tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "out" / "fresh" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_text("my weights")
    with pytest.raises(UsageError, match="choose another directory"):
        run_training_recipe(load_training([recipe]), Lake(tmp_path / "lake"))
    assert weights.read_text() == "my weights"
