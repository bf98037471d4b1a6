"""What a difference is evidence of, in words."""

from __future__ import annotations

from rlt_data.stages.compare.results import OVERALL, Difference


def describe_difference(part: Difference) -> str:
    """Write one sentence or two about a difference: whether it separates the models, and what would."""
    paired = part.paired
    model, baseline = part.model.label, part.baseline.label
    difference = paired.difference
    shown = (
        f"{100 * difference.value + 0.0:+.1f} points (95% interval {100 * difference.low:+.1f} to "
        f"{100 * difference.high:+.1f}, p {format_p(paired.p_value)})"
    )
    if paired.separated:
        better, worse = (model, baseline) if difference.value > 0 else (baseline, model)
        return f"{part.task}: {better} is better than {worse}: {shown}"
    if paired.samples == (1.0, 1.0) and part.task != OVERALL:
        right, other = (round(score * paired.questions) for score in paired.scores)
        start = f"{right} right against {other} of {paired.questions} questions is no evidence"
    else:
        start = "no evidence"
    return f"{part.task}: {start} that {model} and {baseline} differ: {shown}. {describe_needed(part)}"


def describe_needed(part: Difference) -> str:
    """Write how many samples, or questions, would tell the two models apart."""
    needed = part.paired.needed
    if needed.questions is None:
        return "No difference was found, so there is no number of samples that would show it."
    start = "If the true difference is this large, "
    if needed.samples is None:
        return (
            f"{start}no number of samples shows it on these {part.paired.questions:,} questions; about "
            f"{needed.questions:,} such questions would."
        )
    least = "at least" if needed.at_least else "about"
    samples = "sample" if needed.samples == 1 else "samples"
    return f"{start}{least} {needed.samples:,} {samples} a question would show it."


def format_p(value: float) -> str:
    """Write a p-value with two significant digits; small ones as a bound."""
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"
