"""Scores and paired differences of the compared models, as rows of `comparisons`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from rlt_data.stages.compare.config import CompareConfig
from rlt_data.stages.compare.models import ComparedModel
from rlt_data.stages.compare.rows import COMPARED_SETTINGS, ModelRows
from rlt_data.tasks.intervals import Interval, combine_intervals, compute_mean_interval
from rlt_data.tasks.metrics import score_questions
from rlt_data.tasks.paired import PairedDifference, combine_differences, compare_questions

OVERALL = "overall"


@dataclass(frozen=True)
class ModelScore:
    """The score of one model on one task."""

    part: ModelRows
    questions: pl.DataFrame
    interval: Interval

    @property
    def samples(self) -> float:
        """The mean number of samples a question."""
        return float(self.questions.get_column("samples").mean())  # type: ignore[arg-type]


@dataclass(frozen=True)
class Difference:
    """The paired difference of one model from the baseline, on one task or overall.

    `settings` names what differs in the two models' prompts and sampling.
    """

    task: str
    model: ComparedModel
    baseline: ComparedModel
    paired: PairedDifference
    settings: tuple[str, ...]


def score_models(config: CompareConfig, parts: Sequence[ModelRows]) -> list[ModelScore]:
    """Compute the score of each model on each task, with its interval."""
    scores = []
    for part in parts:
        questions = score_questions(part.rows)
        most = int(questions.get_column("samples").max())  # type: ignore[arg-type]
        interval = compute_mean_interval(
            questions.get_column("score").to_numpy(), most, resamples=config.resamples, seed=config.seed
        )
        scores.append(ModelScore(part, questions, interval))
    return scores


def find_differences(
    config: CompareConfig, models: Sequence[ComparedModel], scores: Sequence[ModelScore]
) -> list[Difference]:
    """Compare each model with the first one, on every task that both have questions of, sorted by task."""
    baseline = models[0]
    by_task = {score.part.task: score for score in scores if score.part.model == baseline}
    found = []
    for score in scores:
        other = by_task.get(score.part.task)
        if score.part.model == baseline or other is None:
            continue
        paired = compare_questions(
            score.questions, other.questions, resamples=config.resamples, seed=config.seed
        )
        if paired is not None:
            differing = [
                name for name in COMPARED_SETTINGS if score.part.settings[name] != other.part.settings[name]
            ]
            found.append(Difference(score.part.task, score.part.model, baseline, paired, tuple(differing)))
    return found


def find_common_tasks(models: Sequence[ComparedModel], scores: Sequence[ModelScore]) -> list[str]:
    """List the tasks that every model has a score on."""
    tasks = sorted({score.part.task for score in scores})
    having = {(score.part.task, score.part.model) for score in scores}
    return [task for task in tasks if all((task, model) in having for model in models)]


def combine_overall(
    models: Sequence[ComparedModel], differences: Sequence[Difference], tasks: Sequence[str]
) -> list[Difference]:
    """Combine each model's differences over `tasks`, where it has one on each of them."""
    found = []
    for model in models[1:]:
        mine = [part for part in differences if part.model == model and part.task in tasks]
        if mine and len(mine) == len(tasks):
            differing = dict.fromkeys(name for part in mine for name in part.settings)
            paired = combine_differences([part.paired for part in mine])
            found.append(Difference(OVERALL, model, mine[0].baseline, paired, tuple(differing)))
    return found


def make_score_rows(
    config: CompareConfig, models: Sequence[ComparedModel], scores: Sequence[ModelScore], tasks: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each score, and for each model one for its mean over `tasks`, if there are several."""
    for score in scores:
        yield {
            "task": score.part.task,
            "model": score.part.model.label,
            "model_revision": score.part.settings["model_revision"],
            "extraction": config.extraction,
            "grader": ", ".join(score.part.rows.get_column("grader").unique().sort()),
            "questions": score.questions.height,
            "samples": score.samples,
            **_describe_score(score.interval),
            "method": score.interval.method,
        }
    for model in models if len(tasks) > 1 else ():
        mine = [score for score in scores if score.part.model == model and score.part.task in tasks]
        combined = combine_intervals([score.interval for score in mine])
        yield {
            "task": OVERALL,
            "model": model.label,
            "model_revision": find_revision(model, scores),
            "extraction": config.extraction,
            "questions": sum(score.questions.height for score in mine),
            "samples": sum(score.samples for score in mine) / len(mine),
            **_describe_score(combined),
            "method": combined.method,
        }


def make_difference_rows(
    config: CompareConfig, differences: Sequence[Difference], scores: Sequence[ModelScore]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each difference."""
    graders = {
        (score.part.task, score.part.model): score.part.rows.get_column("grader").unique() for score in scores
    }
    revisions = {(s.part.task, s.part.model): s.part.settings["model_revision"] for s in scores}
    for part in differences:
        paired = part.paired
        pair = (part.model, part.baseline)
        used = {name for model in pair for name in graders.get((part.task, model), ())}
        model_revision, baseline_revision = (
            find_revision(model, scores) if part.task == OVERALL else revisions[part.task, model]
            for model in pair
        )
        yield {
            "task": part.task,
            "model": part.model.label,
            "model_revision": model_revision,
            "baseline": part.baseline.label,
            "baseline_revision": baseline_revision,
            "extraction": config.extraction,
            "grader": ", ".join(sorted(used)) or None,
            "settings_differ": ", ".join(part.settings) or None,
            "questions": paired.questions,
            "left_out": paired.only_model + paired.only_baseline,
            "samples": paired.samples[0],
            "score": paired.scores[0],
            "baseline_score": paired.scores[1],
            "difference": paired.difference.value,
            "difference_low": paired.difference.low,
            "difference_high": paired.difference.high,
            "p_value": paired.p_value,
            "separated": paired.separated,
            "samples_needed": paired.needed.samples,
            "samples_at_least": paired.needed.at_least,
            "questions_needed": paired.needed.questions,
            "method": f"{paired.difference.method}; {paired.test}",
        }


def find_revision(model: ComparedModel, scores: Sequence[ModelScore]) -> object:
    """Return the revision of a model over all its tasks, None where they differ."""
    found = {score.part.settings["model_revision"] for score in scores if score.part.model == model}
    return found.pop() if len(found) == 1 else None


def _describe_score(interval: Interval) -> dict[str, float]:
    return {"score": interval.value, "score_low": interval.low, "score_high": interval.high}
