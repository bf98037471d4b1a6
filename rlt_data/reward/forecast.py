"""Forecast of a scoring run's time and memory: a sample is scored, the rest is computed.

Work is counted in floating-point operations: linear layers and output layer by parameters, attention by
pairs of tokens, a shared prompt once per question. The sample gives operations per second and tokens per
character.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rlt_data.reward.forward.memory import ModelShape, count_working_bytes, read_shape
from rlt_data.reward.scoring.scorer import Scorer, TokenScores
from rlt_data.reward.scoring.texts import ScoreRequest

# Tokens of the sample: enough for a few full passes.
SAMPLE_TOKENS = 6144


@dataclass(frozen=True)
class RunForecast:
    """Forecast of a run: seconds, peak memory of this process (None if unknown) and beyond weights, bytes."""

    texts: int
    seconds: float
    peak_bytes: int | None
    working_bytes: int

    def describe(self) -> str:
        """Write the forecast as one sentence."""
        memory = f"about {self.working_bytes / 2**20:,.0f} MiB beyond the weights"
        if self.peak_bytes is not None:
            memory += f", {self.peak_bytes / 2**30:.1f} GiB in all"
        return f"{self.texts:,} texts: about {_show_time(self.seconds)}, {memory}"


@dataclass(frozen=True)
class _Lengths:
    """Tokens of a text besides its parts, and tokens per character of its parts."""

    fixed: float
    rate: float

    def count(self, *texts: str) -> float:
        return self.rate * sum(map(len, texts))


def forecast_run(scorer: Scorer, requests: Sequence[ScoreRequest]) -> RunForecast:
    """Forecast a run over `requests` (those of one question adjacent) by scoring a sample of them.

    The first texts are scored twice: the first time to warm up.
    """
    groups = [list(group) for _, group in groupby(requests, key=lambda r: (r.question, r.solution))]
    resident = _read_resident()
    sample = _pick_sample(groups)
    texts = [request for group in sample for request in group]
    list(scorer.score(texts[:2]))
    started = time.perf_counter()
    results = [result for result in scorer.score(texts) if isinstance(result, TokenScores)]
    seconds = time.perf_counter() - started
    lengths = _measure_lengths(texts, results)
    shapes = [read_shape(runner.scoring.model) for runner in scorer.students]
    if scorer.teacher is not None:
        shapes.append(read_shape(scorer.teacher.scoring.model))
    done = sum(_count_operations(shapes, group, lengths) for group in sample)
    whole = sum(_count_operations(shapes, group, lengths) for group in groups)
    longest = max(
        (lengths.fixed + lengths.count(r.question, r.solution, r.think) for r in requests), default=0
    )
    working = count_working_bytes(shapes, scorer.sizes, exact=scorer.exact, longest=int(longest))
    return RunForecast(
        texts=len(requests),
        seconds=seconds * whole / done if done else 0.0,
        peak_bytes=resident + working if resident is not None else None,
        working_bytes=working,
    )


def _pick_sample(groups: Sequence[list[ScoreRequest]]) -> list[list[ScoreRequest]]:
    """Pick questions evenly spread over the run, about SAMPLE_TOKENS tokens in all, at least one."""
    # Four characters per token, and a prompt: only the order of magnitude matters here.
    sizes = [sum(100 + (len(r.think) + len(r.solution)) // 4 for r in group) for group in groups]
    mean = max(1, sum(sizes) // max(1, len(sizes)))
    count = min(len(groups), max(1, SAMPLE_TOKENS // mean))
    return [groups[(2 * i + 1) * len(groups) // (2 * count)] for i in range(count)]


def _measure_lengths(texts: Sequence[ScoreRequest], results: Sequence[TokenScores]) -> _Lengths:
    by_key = {request.key: request for request in texts}
    scored = [(by_key[result.key], result) for result in results]
    characters = sum(len(request.think) + len(request.solution) for request, _ in scored)
    tokens = sum(len(result.think_student) + len(result.solution_logprobs) for _, result in scored)
    rate = tokens / characters if characters else 0.25
    rest = [
        result.student_tokens - rate * (len(request.question) + len(request.think) + len(request.solution))
        for request, result in scored
    ]
    return _Lengths(max(0.0, sum(rest) / len(rest)) if rest else 0.0, rate)


def _count_operations(
    shapes: Sequence[ModelShape], group: Sequence[ScoreRequest], lengths: _Lengths
) -> float:
    """Count the floating-point operations of one question's texts under every model."""
    question = lengths.count(group[0].question)
    # The prompt that all texts share is computed once, and all attend to it.
    prompt = lengths.fixed + question
    own = [lengths.count(request.think, request.solution) for request in group]
    total = 0.0
    for shape in shapes:
        tokens = question + sum(own)
        pairs = question * (lengths.fixed + question / 2) + sum(prompt * size + size**2 / 2 for size in own)
        total += 2 * shape.body_parameters * tokens
        total += 4 * shape.layers * shape.heads * shape.head_size * pairs
        total += 2 * shape.vocabulary * shape.hidden * sum(own)
    return total


def _read_resident() -> int | None:
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _show_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
