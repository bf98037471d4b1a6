"""Whether training teaches: the CPU recipe against two controls, over several seeds, on held-out questions.

Run it as `make proof`, or `python tests/benchmarks/prove_training.py [--seeds 0 1 2] [--folder proof]`;
interrupted, it resumes where it stopped. For each seed, four teachers explain questions that no training
used: the base teacher (SFT, no GRPO), one trained with the reward, one with the same rewards shuffled within
each group, and one with lambda = 0. One student scores all of them in the same way.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

from rlt_data import Lake
from rlt_data.progress import Reporter
from rlt_data.recipe.training import load_training, run_training_recipe
from rlt_data.reward.derive import derive_reward
from rlt_data.reward.settings import RewardSettings
from rlt_data.sources.procedural.arithmetic import classify_explanation
from rlt_data.stages.generate import GenerateConfig, generate
from rlt_data.stages.ingest import IngestConfig, ingest
from rlt_data.stages.score import ScoreConfig, score

ARMS = {
    "trained (lambda 3)": [],
    "shuffled reward": ["grpo.reward.shuffle=true"],
    "lambda 0": ["grpo.reward.lambda_kl=0.0"],
}
BASE = "base teacher"
SHARES = {
    "good": ["good"],
    "leaks": ["leak", "padded_leak"],
    "rambles": ["ramble"],
    "slips": ["wrong", "bogus"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("proof"))
    parser.add_argument("--questions", type=int, default=256)
    parser.add_argument("--samples", type=int, default=4)
    given = parser.parse_args()
    scored, steps = [], []
    for seed in given.seeds:
        folder = given.folder / str(seed)
        teachers = train_arms(folder, seed)
        scored.append(score_teachers(folder, seed, teachers, given.questions, given.samples))
        steps.append(read_steps(folder / "lake", seed))
    explanations, rollouts = pl.concat(scored), pl.concat(steps)
    print(describe_arms(explanations))
    print(describe_steps(rollouts))
    print(show_examples(explanations))


def train_arms(folder: Path, seed: int) -> dict[str, str]:
    """Train one teacher for each arm from the same base, in one lake; return the path of each model."""
    seeds = [f"seed={seed}", f"fresh.seed={seed}", f"ingest.seed={seed + 1}"]
    paths = [f'lake="{folder / "lake"}"', f'output="{folder}"']
    teachers = {}
    for arm, changes in ARMS.items():
        loaded = load_training(["teacher-cpu"], [*seeds, *paths, *changes])
        summaries = run_training_recipe(loaded, Lake(folder / "lake"), reporter=Reporter())
        base, trained = (str(summary.extra["model"]) for summary in summaries[-2:])
        teachers |= {BASE: base, arm: trained}
    return teachers


def score_teachers(
    folder: Path, seed: int, teachers: dict[str, str], questions: int, samples: int
) -> pl.DataFrame:
    """Generate explanations of questions that no teacher was trained on, and score them with the student."""
    lake = Lake(folder / "held-out")
    fresh = str(folder / "fresh")
    ingest(lake, IngestConfig(source="arithmetic:chain_sum", size=1500, seed=1000 + seed))
    seen = Lake(folder / "lake").table("questions").scan().select("question_id")
    unseen = lake.table("questions").scan().join(seen, on="question_id", how="anti")
    chosen = unseen.sort("question_id").head(questions).collect().get_column("question_id")
    generate(
        lake,
        GenerateConfig(
            teacher=tuple(teachers.values()),
            where=f"question_id in ({', '.join(repr(name) for name in chosen)})",
            samples=samples,
            max_tokens=48,
            engine="transformers",
            allow_truncated=True,
        ),
    )
    score(lake, ScoreConfig(students=(fresh,), where="teacher_revision is not null", exact=True))
    arms = pl.DataFrame({"teacher": list(teachers.values()), "arm": list(teachers)})
    text = lake.table("questions").scan().select("question_id", "question")
    traces = lake.table("traces").scan().select("trace_id", "question_id", "sample_index", "teacher", "think")
    exact = derive_reward(RewardSettings(estimator="full"))[-1].alias("exact_reward")
    scores = lake.table("scores").scan().select("trace_id", "reward", "r_ss", exact)
    rows = scores.join(traces, on="trace_id").join(text, on="question_id").collect()
    styles = [
        classify_explanation(q, think or "") for q, think in rows.select("question", "think").iter_rows()
    ]
    return rows.with_columns(style=pl.Series(styles), seed=pl.lit(seed)).join(arms, on="teacher")


def read_steps(lake: Path, seed: int) -> pl.DataFrame:
    """Read the mean reward of each training step, by arm."""
    query = """
        select r.step, avg(r.reward) as reward,
               case when (u.config -> 'reward' ->> 'shuffle')::bool then 'shuffled reward'
                    when (u.config -> 'reward' ->> 'lambda_kl')::double = 0 then 'lambda 0'
                    else 'trained (lambda 3)' end as arm
        from rollouts r join runs u using (run_id) group by all order by step"""
    frame = pl.DataFrame(Lake(lake).sql(query))
    return frame.with_columns(seed=pl.lit(seed))


def describe_arms(rows: pl.DataFrame) -> str:
    """Write one line for each teacher: mean and standard deviation over the seeds."""
    shares = [pl.col("style").is_in(styles).mean().alias(name) for name, styles in SHARES.items()]
    means = [pl.col(name).mean() for name in ("reward", "exact_reward", "r_ss")]
    by_seed = rows.group_by("arm", "seed").agg(*means, *shares)
    names = [name for name in by_seed.columns if name not in ("arm", "seed")]
    lines = ["| teacher | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for arm in (BASE, *ARMS):
        part = by_seed.filter(pl.col("arm") == arm)
        cells = [f"{part[name].mean():.2f} ± {part[name].std() or 0.0:.2f}" for name in names]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def describe_steps(rows: pl.DataFrame) -> str:
    """Write the mean reward over seeds, ten steps at a time; each arm has its own reward."""
    table = (
        rows.with_columns(steps=pl.col("step") // 10 * 10)
        .group_by("arm", "steps")
        .agg(pl.col("reward").mean())
        .pivot("steps", index="arm", values="reward", sort_columns=True)
        .sort("arm")
    )
    lines = ["", "| steps from | " + " | ".join(table.columns[1:]) + " |", "|---" * table.width + "|"]
    for arm, *values in table.iter_rows():
        lines.append(f"| {arm} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return "\n".join(lines)


def show_examples(rows: pl.DataFrame) -> str:
    """Write what each teacher of the first seed generates for the same three questions."""
    part = rows.filter((pl.col("seed") == rows["seed"].min()) & (pl.col("sample_index") == 0))
    lines = []
    for question in part["question"].unique().sort().head(3):
        lines += ["", question.splitlines()[-1]]
        for arm in (BASE, *ARMS):
            (row,) = part.filter((pl.col("question") == question) & (pl.col("arm") == arm)).to_dicts()
            lines.append(f"  {arm:20} {row['reward']:6.2f}  {row['think']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
