"""Combinations of stages that make no sense, found when a recipe is loaded, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rlt_data.recipe.schema import LINKS, Recipe, Step
from rlt_data.reward.estimators import ESTIMATORS
from rlt_data.stages.rank.policies import parse_policy


@dataclass(frozen=True)
class Contradiction:
    """What cannot be meant: the step and the key it shows at, the reason, and what to do."""

    step: Step
    key: str | None
    reason: str
    remedy: str


def find_contradictions(recipe: Recipe) -> list[Contradiction]:
    """List what cannot be meant in `recipe`, in the order of the pipeline."""
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
                step, None, f"[[{step.section}]] stands twice with the same settings", "drop one"
            )


def _find_greedy_samples(recipe: Recipe) -> Iterator[Contradiction]:
    for step in _list_steps(recipe, "generate"):
        config = recipe.generate[step.place]
        if config.temperature == 0 and config.samples > 1:
            yield Contradiction(
                step,
                "samples",
                f"at temperature 0 all {config.samples} samples of a question are the same text",
                "set samples = 1, or a temperature above 0",
            )


def _find_estimators_without_scores(recipe: Recipe) -> Iterator[Contradiction]:
    """A divergence that the recipe's own scores do not hold cannot judge them."""
    if not recipe.score:
        return
    exact = any(config.stores_divergences for config in recipe.score)
    compared = any(config.teacher != "none" for config in recipe.score)
    asked = [(step, "estimator", recipe.rank[step.place].estimator) for step in _list_steps(recipe, "rank")]
    asked += [
        (step, "reward", recipe.reward[step.place].reward.estimator) for step in _list_steps(recipe, "reward")
    ]
    for step, key, estimator in asked:
        if estimator == "auto":
            continue
        if ESTIMATORS[estimator].exact and not exact:
            yield Contradiction(
                step,
                key,
                f"{step.section} judges by the exact divergence, which score does not store",
                "set score.exact = true, or another estimator",
            )
        elif step.section == "rank" and not compared:
            yield Contradiction(
                step,
                key,
                f"{step.section} judges by {estimator}, but score stores no divergence (teacher = 'none')",
                "name a teacher in [score], or leave the estimator out",
            )


def _find_gaps(recipe: Recipe) -> Iterator[Contradiction]:
    """A stage that reads a set would take an older one where the stage that makes it is left out."""
    for section, maker, before in (("rank", "score", "generate"), ("substitute", "rank", "score")):
        if getattr(recipe, maker) or not getattr(recipe, before):
            continue
        for step in _list_steps(recipe, section):
            if section == "rank" and not parse_policy(recipe.rank[step.place].policy).needs_rewards:
                continue
            if section == "substitute" and recipe.substitute[step.place].ranking is not None:
                continue
            yield Contradiction(
                step,
                None,
                f"{section} would not see what [{before}] makes: there is no [{maker}] between them",
                f"add [{maker}]",
            )
    if recipe.rank and not recipe.substitute:
        for step in _list_steps(recipe, "export"):
            if recipe.export[step.place].distillation is None:
                reason = "export would write an older set: there is no [substitute] after [rank]"
                yield Contradiction(step, None, reason, "add [substitute]")


def _find_unpaired(recipe: Recipe) -> Iterator[Contradiction]:
    """Several sets and several readers of them go together one by one, so there must be as many of each."""
    for section, (maker, field) in LINKS.items():
        makers, takers = len(getattr(recipe, maker)), len(getattr(recipe, section))
        if makers < 2 or takers < 2 or makers == takers:
            continue
        for step in _list_steps(recipe, section):
            if getattr(step.config, field) is None:
                yield Contradiction(
                    step,
                    None,
                    f"which of {makers} [[{maker}]] each of {takers} [[{section}]] reads cannot be told",
                    f"have as many of each, or name the run: {section}.{step.place}.{field}",
                )


def _find_shared_targets(recipe: Recipe) -> Iterator[Contradiction]:
    paths = [config.path for config in recipe.export]
    for step in _list_steps(recipe, "export"):
        if paths[step.place] in paths[: step.place]:
            reason = f"two exports write to {paths[step.place]!r}"
            yield Contradiction(step, "path", reason, "give each a path of its own")


def _list_steps(recipe: Recipe, section: str) -> list[Step]:
    return [step for step in recipe.list_steps() if step.section == section]


CHECKS: Sequence[Callable[[Recipe], Iterator[Contradiction]]] = (
    _find_repeated_steps,
    _find_greedy_samples,
    _find_estimators_without_scores,
    _find_gaps,
    _find_unpaired,
    _find_shared_targets,
)
