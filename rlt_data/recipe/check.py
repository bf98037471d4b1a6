"""Combinations of stages that make no sense, found when a recipe is loaded, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from rlt_data.recipe.schema import Recipe, Step
from rlt_data.reward.estimators import ESTIMATORS, Estimator
from rlt_data.stages.export import ExportConfig
from rlt_data.stages.generate import GenerateConfig
from rlt_data.stages.rank.config import RankConfig
from rlt_data.stages.rank.policies import parse_policy
from rlt_data.stages.reward import RewardConfig
from rlt_data.stages.runtime.contract import StageConfig
from rlt_data.stages.score import ScoreConfig

ConfigT = TypeVar("ConfigT", bound=StageConfig)


@dataclass(frozen=True)
class Contradiction:
    """A combination that makes no sense: the step and the key concerned, the reason, and what to do."""

    step: Step
    key: str | None
    reason: str
    remedy: str


def find_contradictions(recipe: Recipe) -> list[Contradiction]:
    """List the combinations in `recipe` that make no sense."""
    return [found for check in CHECKS for found in check(recipe)]


def _find_repeated_steps(recipe: Recipe) -> Iterator[Contradiction]:
    steps = recipe.list_steps()
    for position, step in enumerate(steps):
        if any(
            step.config == earlier.config and recipe.find_maker(step) == recipe.find_maker(earlier)
            for earlier in steps[:position]
            if earlier.section == step.section
        ):
            yield Contradiction(
                step, None, f"[[{step.section}]] appears twice with the same settings", "remove one"
            )


def _find_greedy_samples(recipe: Recipe) -> Iterator[Contradiction]:
    for step, config in _pair(recipe, GenerateConfig):
        if config.temperature == 0 and config.samples > 1:
            yield Contradiction(
                step,
                "samples",
                f"at temperature 0 all {config.samples} samples of a question are the same text",
                "set samples = 1, or a temperature above 0",
            )


def _find_estimators_without_scores(recipe: Recipe) -> Iterator[Contradiction]:
    """Find rewards that need a divergence which the scores of the recipe do not store."""
    scores = [config for _, config in _pair(recipe, ScoreConfig)]
    if not scores:
        return
    exact = any(config.stores_divergences for config in scores)
    compared = any(config.teacher != "none" for config in scores)
    requested: list[tuple[Step, Literal["auto", Estimator]]] = [
        *((step, config.reward.estimator) for step, config in _pair(recipe, RankConfig)),
        *((step, config.reward.estimator) for step, config in _pair(recipe, RewardConfig)),
    ]
    for step, estimator in requested:
        if estimator == "auto":
            continue
        if ESTIMATORS[estimator].exact and not exact:
            yield Contradiction(
                step,
                "reward",
                f"{step.section} needs the exact divergence, which score does not store",
                "set score.exact = true, or another estimator",
            )
        elif step.section == "rank" and not compared:
            yield Contradiction(
                step,
                "reward",
                f"{step.section} needs a divergence, but score stores none (teacher = 'none')",
                "set score.teacher, or remove the estimator",
            )


def _find_gaps(recipe: Recipe) -> Iterator[Contradiction]:
    """Find stages that would use an older set because the recipe lacks the stage that makes a new one."""
    for step in recipe.list_steps("rank"):
        assert isinstance(step.config, RankConfig)
        if recipe.list_configs("score") or not recipe.list_configs("generate"):
            break
        if parse_policy(step.config.policy).needs_rewards:
            reason = "rank would ignore the traces of [generate]: there is no [score] between them"
            yield Contradiction(step, None, reason, "add [score]")
    for section, before in (("substitute", "score"), ("export", "rank")):
        for step in recipe.list_steps(section):
            made_by = step.declaration.made_by
            assert made_by is not None
            named = getattr(step.config, made_by.field) is not None
            if not named and recipe.list_configs(before) and not recipe.list_configs(made_by.stage):
                reason = f"{section} would use an older set: there is no [{made_by.stage}] after [{before}]"
                yield Contradiction(step, None, reason, f"add [{made_by.stage}]")


def _find_unpaired(recipe: Recipe) -> Iterator[Contradiction]:
    """Find stages that cannot be paired: where there are several sets, each needs one stage that uses it."""
    for step in recipe.list_steps():
        made_by = step.declaration.made_by
        if made_by is None or getattr(step.config, made_by.field) is not None:
            continue
        makers, users = len(recipe.list_configs(made_by.stage)), len(recipe.list_configs(step.section))
        if makers > 1 and users > 1 and makers != users:
            yield Contradiction(
                step,
                None,
                f"{makers} [[{made_by.stage}]] and {users} [[{step.section}]] cannot be paired",
                f"write the same number of both, or set {step.section}.{step.index}.{made_by.field} to a run",
            )


def _find_shared_targets(recipe: Recipe) -> Iterator[Contradiction]:
    pairs = _pair(recipe, ExportConfig)
    paths = [config.path for _, config in pairs]
    for step, config in pairs:
        if config.path in paths[: step.index]:
            reason = f"two exports write to {config.path!r}"
            yield Contradiction(step, "path", reason, "give each its own path")


def _pair(recipe: Recipe, config: type[ConfigT]) -> list[tuple[Step, ConfigT]]:
    """List the steps whose configuration is of the class `config`, each with its configuration."""
    return [(step, step.config) for step in recipe.list_steps() if isinstance(step.config, config)]


CHECKS: Sequence[Callable[[Recipe], Iterator[Contradiction]]] = (
    _find_repeated_steps,
    _find_greedy_samples,
    _find_estimators_without_scores,
    _find_gaps,
    _find_unpaired,
    _find_shared_targets,
)
