"""GRPO from table to table: rows, advantages, lineage, what is refused, and the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from rlt_data.errors import EngineError, InputError, UsageError
from rlt_data.lake import Lake
from rlt_data.progress import Reporter
from rlt_data.stages.ingest import IngestConfig, ingest
from rlt_data.stages.runtime.contract import StageSummary
from rlt_data.training.rl.config import GrpoConfig
from rlt_data.training.rl.options import list_options
from rlt_data.training.rl.questions import plan_questions
from rlt_data.training.rl.stage import train_grpo

pytest.importorskip("trl")

TRAINER = {"gradient_checkpointing": False, "use_cpu": True, "learning_rate": 1e-3}
SMALL = {"steps": 3, "questions_per_step": 2, "group_size": 4, "max_tokens": 8, "max_prompt_tokens": 200}


def make_config(models: dict[str, str], output: Path, **changes: Any) -> GrpoConfig:
    values = {**SMALL, "model": models["teacher"], "students": (models["student"],), "output": str(output)}
    return GrpoConfig(**{**values, "trainer": TRAINER, **changes})


@pytest.fixture(scope="module")
def trained(
    models: dict[str, str], make_lake: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Lake, GrpoConfig, StageSummary]:
    folder = tmp_path_factory.mktemp("grpo")
    lake = make_lake(folder / "lake")
    config = make_config(models, folder / "out", trainer={**TRAINER, "beta": 0.04})
    return lake, config, train_grpo(lake, config)


def test_an_absent_server_of_students_is_reported_at_once(
    models: dict[str, str], make_lake: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server = "http://127.0.0.1:9/v1"
    config = make_config(
        models,
        tmp_path / "out",
        reward={"estimator": "k3"},
        student_temperature=1.0,
        student_server={"base_url": server, "ready_timeout": 1.0},
    )
    with pytest.raises(EngineError, match="not ready after 1 s"):
        train_grpo(make_lake(tmp_path / "lake"), config, reporter=Reporter())
    shown = capfd.readouterr().err
    assert shown.count(f"the server at {server} does not answer (") == 1
    assert "trying again for 1 s (engine option ready_timeout)" in shown


def test_every_rollout_is_a_row(trained: tuple[Lake, GrpoConfig, StageSummary]) -> None:
    lake, _, summary = trained
    rows = lake.table("rollouts").scan().collect()
    assert rows.height == 3 * 2 * 4
    assert summary.tables["rollouts"] == 24
    assert (summary.extra["groups"], summary.extra["groups_without_spread"]) == (6, 0)
    assert rows.group_by("group_id").len()["len"].to_list() == [4] * 6
    assert sorted(rows["step"].unique()) == [0, 1, 2]
    for _, group in rows.group_by("group_id"):
        assert group["question_id"].n_unique() == 1
        assert sorted(group["sample_index"]) == [0, 1, 2, 3]
        spread = group["reward"] - group["reward"].mean()
        expected = spread / (group["reward"].std() + 1e-4)
        assert group["advantage"].to_list() == pytest.approx(expected.to_list(), abs=1e-3)
    sums = rows["r_ss"] - 3.0 * rows["r_kl"] + rows["format_penalty"]
    assert rows["reward"].to_list() == pytest.approx(sums.to_list(), abs=1e-6)
    assert rows["truncated"].any()
    assert (rows.filter("truncated")["completion_tokens"] == 8).all()
    assert set(rows["state"]) <= {"closed", "missing_close", "empty", "repeated_tags"}


def test_metrics_are_rows_and_sql_plots_the_reward(trained: tuple[Lake, GrpoConfig, StageSummary]) -> None:
    lake, _, summary = trained
    curve = lake.sql(
        "select m.step, any_value(m.value) as logged, avg(r.reward) as reward from metrics m "
        "join rollouts r using (step) where m.phase = 'grpo' and m.name = 'reward' group by m.step order by 1"
    ).to_pylist()
    assert [row["step"] for row in curve] == [0, 1, 2]
    for row in curve:
        assert row["logged"] == pytest.approx(row["reward"], abs=1e-4)
    names = set(lake.table("metrics").scan().collect()["name"])
    assert {"kl", "entropy", "rlt/cut_off_share", "frac_reward_zero_std", "rlt/kl_max"} <= names
    assert summary.tokens == lake.table("rollouts").scan().collect()["completion_tokens"].sum()


def test_lineage_ties_model_to_data_and_recipe(
    trained: tuple[Lake, GrpoConfig, StageSummary], models: dict[str, str]
) -> None:
    lake, config, summary = trained
    run = lake.run(summary.run_id)
    assert run.config["steps"] == config.steps
    assert {state.table for state in run.inputs} == {"questions"}
    assert {model["model"] for model in run.models} == {models["teacher"], models["student"]}
    assert run.counts["extra"]["revision"] == summary.extra["revision"]
    note = Path(str(summary.extra["model"])) / "rlt_data_training.md"
    assert json.dumps(summary.run_id) in note.read_text()


def test_the_result_loads_and_differs_from_its_base(
    trained: tuple[Lake, GrpoConfig, StageSummary], models: dict[str, str]
) -> None:
    from safetensors.torch import load_file

    from rlt_data.models import resolve_model

    _, _, summary = trained
    identity = resolve_model(str(summary.extra["model"]), role="teacher")
    assert identity.revision == summary.extra["revision"]
    new = load_file(identity.require_directory() / "model.safetensors")
    old = load_file(Path(models["teacher"]) / "model.safetensors")
    assert new.keys() == old.keys()
    assert any((new[name] != old[name]).any() for name in new)
    assert not list(identity.require_directory().glob("*.bin")), "nothing pickled is left behind"


def test_a_finished_run_is_not_run_again(trained: tuple[Lake, GrpoConfig, StageSummary]) -> None:
    lake, config, summary = trained
    # Nor where only what it takes to run was changed.
    trainer = {**config.trainer, "gradient_checkpointing": True, "dataloader_num_workers": 1}
    changes = {"micro_batch_size": 2, "output": "elsewhere", "trainer": trainer}
    again = train_grpo(lake, config.model_copy(update=changes))
    assert again.status == "already finished"
    assert again.run_id == summary.run_id
    assert again.extra["model"] == summary.extra["model"]


def test_sampling_and_reward_do_not_depend_on_the_passes_of_a_step(
    trained: tuple[Lake, GrpoConfig, StageSummary], make_lake: Any, tmp_path: Path
) -> None:
    lake, config, _ = trained
    other = make_lake(tmp_path / "lake")
    changes = {"micro_batch_size": 2, "output": str(tmp_path / "out"), "teacher_logprobs": "policy"}
    train_grpo(other, config.model_copy(update=changes))
    key = ["step", "question_id", "sample_index"]
    one, two = (each.table("rollouts").scan().sort(key).collect() for each in (lake, other))
    assert one["completion"].to_list() == two["completion"].to_list()
    assert one["reward"].to_list() == pytest.approx(two["reward"].to_list(), abs=1e-3)


def test_shuffled_rewards_keep_the_true_parts(models: dict[str, str], lake: Lake, tmp_path: Path) -> None:
    config = make_config(models, tmp_path, steps=1, questions_per_step=4, reward={"shuffle": True})
    train_grpo(lake, config)
    rows = lake.table("rollouts").scan().collect()
    true = [
        (group["reward"] - group["reward"].mean()) / (group["reward"].std() + 1e-4)
        for _, group in rows.group_by("group_id", maintain_order=True)
    ]
    given = [group["advantage"] for _, group in rows.group_by("group_id", maintain_order=True)]
    for one, other in zip(true, given, strict=True):
        assert sorted(one) == pytest.approx(sorted(other), abs=1e-3)
    assert any(list(a) != pytest.approx(list(b), abs=1e-2) for a, b in zip(true, given, strict=True))


def test_the_conventional_baseline_sees_no_solution(
    models: dict[str, str], lake: Lake, tmp_path: Path
) -> None:
    pytest.importorskip("math_verify")
    # A recipe may name students; they are not used.
    config = make_config(models, tmp_path, steps=1, reward={"type": "correctness"}, students=("nowhere",))
    train_grpo(lake, config)
    rows = lake.table("rollouts").scan().collect()
    assert set(rows["reward"]) <= {0.0, 1.0}
    assert rows["kl_avg"].null_count() == rows.height


def test_questions_without_an_answer_are_rejects_of_the_baseline(
    models: dict[str, str], tmp_path: Path
) -> None:
    essay = "Because the light of the sun is scattered by the air, and blue light more than red light. " * 2
    rows = [{"question": "Why?", "solution": essay}, {"question": "1 + 1?", "solution": "\\boxed{2}"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lake = Lake(tmp_path / "lake")
    ingest(lake, IngestConfig(source=str(tmp_path / "rows.jsonl")))
    train_grpo(lake, make_config(models, tmp_path, steps=1, reward={"type": "correctness"}, students=()))
    reject = lake.table("rejects").scan().collect().row(0, named=True)
    assert reject["reason"] == "no_answer"
    assert lake.table("rollouts").scan().collect()["question_id"].n_unique() == 1


def test_weights_too_coarse_for_the_learning_rate_give_a_note(
    models: dict[str, str], lake: Lake, tmp_path: Path
) -> None:
    trainer = {**TRAINER, "model_init_kwargs": {"dtype": "bfloat16"}, "learning_rate": 1e-6}
    coarse = train_grpo(lake, make_config(models, tmp_path, steps=1, trainer=trainer))
    assert any("round to zero" in note for note in coarse.notes)


def test_lora_trains_an_adapter(models: dict[str, str], lake: Lake, tmp_path: Path) -> None:
    from rlt_data.models import load_model, resolve_model

    config = make_config(
        models, tmp_path, steps=1, lora={"r": 4, "target_modules": "all-linear"}, teacher_logprobs="policy"
    )
    summary = train_grpo(lake, config)
    identity = resolve_model(str(summary.extra["model"]), role="teacher")
    assert identity.base is not None
    assert load_model(identity, dtype="float32", device="cpu").config.model_type == "qwen2"


def test_a_long_prompt_is_a_reject(models: dict[str, str], lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the 24 selected questions"):
        train_grpo(lake, make_config(models, tmp_path, max_prompt_tokens=5))
    rejects = lake.table("rejects").scan().collect()
    assert set(rejects["reason"]) == {"prompt_too_long"}
    assert rejects.height == 24


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"learning_rat": 1}, "no option 'learning_rat'"),
        ({"num_generations": 8}, "decided by grpo.group_size"),
        ({"output_dir": "x"}, "decided by the recipe's output"),
        ({"loss_type": "dapo", "epsilon": "many"}, None),
        ({"optim": "no such optimizer"}, "refuses its options"),
    ],
)
def test_options_are_checked_against_trl(
    models: dict[str, str], lake: Lake, tmp_path: Path, trainer: dict[str, Any], message: str | None
) -> None:
    config = make_config(models, tmp_path, trainer={**TRAINER, **trainer})
    if message is None:
        assert list_options(config, tmp_path, world=1)["loss_type"] == "dapo"
        return
    with pytest.raises(UsageError, match=message) as refused:
        train_grpo(lake, config)
    assert "learning_rat" not in trainer or "learning_rate" in str(refused.value.remedy)
    assert [run.stage for run in lake.runs()] == ["ingest"], "refused before anything ran"


def test_unequal_passes_are_refused(models: dict[str, str], lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="do not divide"):
        train_grpo(lake, make_config(models, tmp_path, micro_batch_size=3))


def test_unchecked_engines_are_refused(models: dict[str, str], lake: Lake, tmp_path: Path) -> None:
    options = {**TRAINER, "use_vllm": True, "vllm_importance_sampling_correction": False}
    with pytest.raises(UsageError, match="nothing checks"):
        list_options(make_config(models, tmp_path, trainer=options), tmp_path, world=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"students": ()},
        {"teacher_logprobs": "sampled", "reward": {"estimator": "full"}},
        {"teacher_logprobs": "sampled", "teacher_temperature": 1.0},
        {"student_server": {"base_url": "http://localhost:1/v1"}},
        {"student_server": {"base_url": "x"}, "student_temperature": 1.0, "reward": {"estimator": "full"}},
        {"save_every": 3, "trainer": {**TRAINER, "num_iterations": 2}},
    ],
)
def test_combinations_that_make_no_sense_are_refused(models: dict[str, str], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make_config(models, Path(), **wrong)


def test_questions_come_once_each_before_any_comes_again(models: dict[str, str]) -> None:
    config = make_config(models, Path(), steps=7, questions_per_step=4)
    plan = plan_questions(list(range(10)), config)
    assert len(plan) == 28
    assert sorted(plan[:10]) == sorted(plan[10:20]) == list(range(10))
    assert plan == plan_questions(list(range(10)), config)
    assert plan != plan_questions(list(range(10)), config.model_copy(update={"seed": 1}))


def test_what_is_learned_makes_a_run_another_run(models: dict[str, str]) -> None:
    def identify(**changes: Any) -> dict[str, Any]:
        return make_config(models, Path(), trainer={**TRAINER, **changes}).list_identity()

    assert identify(report_to="wandb", vllm_gpu_memory_utilization=0.2, ddp_timeout=9) == identify()
    for change in ({"beta": 0.1}, {"learning_rate": 1.0}, {"loss_type": "grpo"}, {"use_vllm": True}):
        assert identify(**change) != identify()


def test_rewards_are_pinned_to_the_data_that_was_read(
    trained: tuple[Lake, GrpoConfig, StageSummary],
) -> None:
    lake, _, _ = trained
    questions = lake.table("questions").scan().select("question_id").collect()["question_id"]
    trained = lake.table("rollouts").scan().select("question_id").collect()["question_id"]
    assert trained.is_in(questions.implode()).all()
    assert trained.n_unique() == 6
    assert isinstance(trained, pl.Series)
