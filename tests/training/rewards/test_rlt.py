"""`RltReward`: the number of `rlt-data score` in TRL, wherever the teacher's log-probabilities come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlt_data.errors import UsageError
from rlt_data.formats import load_format, render_teacher_prompt
from rlt_data.lake import Lake
from rlt_data.models import load_tokenizer, resolve_model
from rlt_data.reward.settings import RewardSettings
from rlt_data.stages.generate import GenerateConfig, generate
from rlt_data.stages.score import ScoreConfig, score

pytest.importorskip("trl")

FORMAT = load_format("stratos")


@pytest.fixture(scope="module")
def scored(make_lake: Any, models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """48 completions, scored by the stage with two students, the exact divergence stored."""
    lake: Lake = make_lake(tmp_path_factory.mktemp("scored") / "lake")
    options = {"samples": 2, "max_tokens": 12, "engine": "transformers", "allow_truncated": True}
    generate(lake, GenerateConfig(teacher=models["teacher"], **options))
    for student in ("student", "other"):
        config = ScoreConfig(students=(models[student],), exact=True, where="origin = 'generated'")
        score(lake, config)
    traces = lake.table("traces").scan().filter(pl.col("origin") == "generated")
    questions = lake.table("questions").scan().select("question_id", "question", "solution")
    scores = lake.table("scores").scan().drop("question_id", "run_id", "teacher", "format")
    return scores.join(traces, on="trace_id").join(questions, on="question_id").sort("trace_id").collect()


@pytest.fixture(scope="module")
def trainer(models: dict[str, str], tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A plain TRL trainer, as in a user's own program."""
    import datasets
    import trl

    prompt = render_teacher_prompt(FORMAT, tokenizer, "State it: 1 + 1 =", "The answer is \\boxed{2}.").text
    return trl.GRPOTrainer(
        models["teacher"],
        reward_funcs=[lambda prompts, **columns: [0.0] * len(prompts)],
        args=trl.GRPOConfig(
            output_dir=str(tmp_path_factory.mktemp("trainer")),
            use_cpu=True,
            bf16=False,
            beta=0.04,
            per_device_train_batch_size=2,
            num_generations=2,
            temperature=0.7,
            report_to="none",
        ),
        train_dataset=datasets.Dataset.from_dict({"prompt": [prompt] * 2}),
        processing_class=tokenizer,
    )


def make_reward(models: dict[str, str], tokenizer: Any, trainer: Any, *students: str, **options: Any) -> Any:
    from rlt_data.training.rewards.rlt import RltReward

    settings = RewardSettings(**options.pop("settings", {}))
    names = [models[name] for name in students or ("student",)]
    reward = RltReward(names, policy_tokenizer=tokenizer, settings=settings, dtype="float32", **options)
    reward.follow(trainer)
    return reward


def call(reward: Any, rows: pl.DataFrame, **columns: Any) -> list[float]:
    return reward(
        prompts=[""] * rows.height,
        completions=rows["completion"].to_list(),
        completion_ids=rows["completion_token_ids"].to_list(),
        question=rows["question"].to_list(),
        solution=rows["solution"].to_list(),
        **columns,
    )


@pytest.mark.parametrize("estimator", ["k1", "k3", "full"])
def test_it_agrees_with_the_score_stage(
    scored: pl.DataFrame, models: dict[str, str], tokenizer: Any, trainer: Any, estimator: str
) -> None:
    from rlt_data.reward.derive import derive_reward

    settings = {"estimator": estimator, "alpha": 0.1, "lambda_kl": 2.0}
    rows = scored.filter(pl.col("student") == models["student"])
    reward = make_reward(models, tokenizer, trainer, settings=settings, teacher_logprobs="policy")
    expected = rows.select(derive_reward(RewardSettings(**settings)))
    assert rows.height >= 40, "some random bytes cannot be scored"
    assert call(reward, rows) == pytest.approx(expected["reward"].to_list(), abs=1e-5)
    for name in ("solution_logprob_avg", "solution_logprob_min", "kl_avg", "kl_max", "format_penalty"):
        parts = [result.parts[name] for result in reward.last]
        assert parts == pytest.approx(expected[name].to_list(), abs=1e-5), name
    assert -1.0 in expected["format_penalty"].to_list(), "a case that never closes is among them"


def test_sampled_log_probabilities_spare_the_forward_pass(
    lake: Lake, models: dict[str, str], tokenizer: Any, trainer: Any
) -> None:
    import torch

    traces = lake.table("traces").scan().select("question_id", "think")
    questions = lake.table("questions").scan().select("question_id", "question", "solution")
    rows = traces.join(questions, on="question_id").sort("think").head(6).collect()
    ids, logprobs = [], []
    for question, solution, think in rows.select("question", "solution", "think").iter_rows():
        prompt = tokenizer(render_teacher_prompt(FORMAT, tokenizer, question, solution).text)["input_ids"]
        written = tokenizer(think + FORMAT.teacher.close)["input_ids"]
        with torch.no_grad():
            logits = trainer.model(input_ids=torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1]
        chosen = (logits / 0.7).log_softmax(dim=-1).gather(1, torch.tensor(written).unsqueeze(1))
        ids.append(written)
        logprobs.append(chosen.squeeze(1).tolist())
    texts = [tokenizer.decode(written) for written in ids]
    questions_, solutions = rows["question"].to_list(), rows["solution"].to_list()
    by_pass = make_reward(models, tokenizer, trainer, teacher_logprobs="policy")
    expected = [result.reward for result in by_pass.score(questions_, solutions, texts)]
    # Without a trainer there is no forward pass: every number comes from sampling.
    spared = make_reward(models, tokenizer, None, sampling_temperature=0.7)
    found = [result.reward for result in spared.score(questions_, solutions, texts, ids, logprobs)]
    assert found == pytest.approx(expected, abs=1e-4)
    apart = make_reward(models, tokenizer, None, sampling_temperature=1.0)
    with pytest.raises(UsageError, match="follow"):
        apart.score(questions_, solutions, texts, ids, logprobs)
    # Sampled as other tokens than the text has: not the same quantity, so the row needs a forward pass.
    letters = [token for letter in "It must" for token in tokenizer(letter)["input_ids"]]
    one = (questions_[:1], solutions[:1], ["It must"], [letters], [[-1.0] * len(letters)])
    with pytest.raises(UsageError, match="follow"):
        spared.score(*one)
    strict = make_reward(models, tokenizer, None, sampling_temperature=0.7, teacher_logprobs="sampled")
    (left_out,) = strict.score(*one)
    assert left_out.reward is None
    assert "other_tokens" in str(left_out.failure)
    with pytest.raises(UsageError, match="no log-probabilities"):
        strict.score(*one[:3])


def test_rewards_of_several_students_are_averaged_or_the_minimum_is_used(
    scored: pl.DataFrame, models: dict[str, str], tokenizer: Any, trainer: Any
) -> None:
    rows = scored.filter(pl.col("student") == models["student"])
    one, other = (call(make_reward(models, tokenizer, trainer, name), rows) for name in ("student", "other"))
    both = ("student", "other")
    mean = call(make_reward(models, tokenizer, trainer, *both), rows)
    least = call(make_reward(models, tokenizer, trainer, *both, combine="minimum"), rows)
    assert mean == pytest.approx([(a + b) / 2 for a, b in zip(one, other, strict=True)], abs=1e-5)
    assert least == pytest.approx([min(a, b) for a, b in zip(one, other, strict=True)], abs=1e-5)
    assert one != pytest.approx(other, abs=1e-2)


def test_students_elsewhere_give_the_same_reward(
    scored: pl.DataFrame, models: dict[str, str], tokenizer: Any, trainer: Any
) -> None:
    """A served student is a backend of log-probabilities; here one that computes them in this process."""
    from rlt_data.reward.backends.torch import TorchBackend
    from rlt_data.training.rewards.rlt import RltReward
    from rlt_data.training.rewards.students import load_student

    rows = scored.filter(pl.col("student") == models["student"])
    student = load_student(models["student"], 0.7, dtype="float32", device="cpu")
    served = RltReward([TorchBackend(student)], policy_tokenizer=tokenizer, teacher_logprobs="policy")
    served.follow(trainer)
    assert call(served, rows) == pytest.approx(rows["reward"].to_list(), abs=1e-4)
    with pytest.raises(UsageError, match="some are served"):
        RltReward([TorchBackend(student), student], policy_tokenizer=tokenizer)
    exact = RewardSettings(estimator="full")
    served = RltReward([TorchBackend(student)], policy_tokenizer=tokenizer, settings=exact)
    served.follow(trainer)
    with pytest.raises(UsageError, match="whole distributions"):
        call(served, rows)


def test_the_reference_policy_stays_where_it_was(
    scored: pl.DataFrame, models: dict[str, str], tokenizer: Any, trainer: Any
) -> None:
    import torch

    rows = scored.filter(pl.col("student") == models["student"]).head(8)
    reference = make_reward(models, tokenizer, trainer, teacher_logprobs="reference")
    policy = make_reward(models, tokenizer, trainer, teacher_logprobs="policy")
    before = call(reference, rows)
    assert before == pytest.approx(call(policy, rows), abs=1e-5)
    weight = trainer.model.model.embed_tokens.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(1.3)
    try:
        assert call(reference, rows) == pytest.approx(before, abs=1e-6)
        assert call(policy, rows) != pytest.approx(before, abs=1e-2)
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def test_without_lambda_no_teacher_is_run(
    scored: pl.DataFrame, models: dict[str, str], tokenizer: Any
) -> None:
    rows = scored.filter(pl.col("student") == models["student"]).head(8)
    reward = make_reward(models, tokenizer, None, settings={"lambda_kl": 0.0})
    expected = rows["r_ss"] + rows["format_penalty"]
    assert call(reward, rows) == pytest.approx(expected.to_list(), abs=1e-5)


def test_parts_are_logged_and_what_cannot_be_scored_is_excluded(
    scored: pl.DataFrame, models: dict[str, str], tokenizer: Any, trainer: Any
) -> None:
    columns: dict[str, list[Any]] = {}
    metrics: dict[str, float] = {}
    rows = scored.filter(pl.col("student") == models["student"]).head(3)
    rows = rows.with_columns(
        solution=pl.Series([" ", *rows["solution"].to_list()[1:]])  # blank: nothing to score
    )
    reward = make_reward(models, tokenizer, trainer)
    rewards = call(reward, rows, log_extra=columns.__setitem__, log_metric=metrics.__setitem__)
    assert rewards[0] is None
    assert "blank_solution" in str(reward.last[0].failure)
    assert all(isinstance(value, float) for value in rewards[1:])
    assert columns["r_kl"][0] is None
    assert len(columns["solution_logprob_min"]) == 3
    assert metrics["rlt/unscored_share"] == pytest.approx(1 / 3)
    assert metrics["rlt/reward"] == pytest.approx((rewards[1] + rewards[2]) / 2)


def test_what_is_missing_is_named(scored: pl.DataFrame, models: dict[str, str], tokenizer: Any) -> None:
    reward = make_reward(models, tokenizer, None)
    with pytest.raises(UsageError, match="column 'solution'"):
        reward([""], ["x"], question=["q"])
    with pytest.raises(UsageError, match="follow"):
        call(reward, scored.head(1))
    with pytest.raises(UsageError, match="whole distribution"):
        make_reward(models, tokenizer, None, settings={"estimator": "full"}, teacher_logprobs="sampled")


def test_a_student_of_other_tokens_is_refused_before_anything_is_sampled(
    models: dict[str, str], tmp_path: Path
) -> None:
    from tiny_models import save_tiny_model

    other = load_tokenizer(resolve_model(str(save_tiny_model(tmp_path / "other")), role="teacher"))
    with pytest.raises(UsageError, match="token by token, but the two tokenizers differ"):
        make_reward(models, other, None)
    make_reward(models, other, None, settings={"lambda_kl": 0.0})


def test_checkpoints_hold_a_moving_reference(trainer: Any, tmp_path: Path) -> None:
    import torch

    from rlt_data.training.common.checkpoints import load_reference, save_reference

    trainer.args.sync_ref_model = True
    weight = trainer.ref_model.model.norm.weight
    try:
        with torch.no_grad():
            weight.fill_(3.0)
        save_reference(trainer, tmp_path)
        with torch.no_grad():
            weight.fill_(1.0)
        load_reference(trainer, tmp_path)
        assert torch.equal(weight, torch.full_like(weight, 3.0))
    finally:
        trainer.args.sync_ref_model = False
        with torch.no_grad():
            weight.fill_(1.0)
