"""The scorer against the public implementation's method, with random weights, on one core.

Run it as `python tests/benchmarks/bench_score.py [--case NAME]... [--rounds N]`. Both ways score the same
texts with the same models in one process and take turns; times are CPU seconds of the process, pinned to
one core, and medians over rounds. Nothing is asserted: it prints a table, which BENCHMARKS.md explains.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from baseline import BaselineScore, score_baseline
from workload import CASES, Case, build_format, build_models, build_requests

from rlt_data.formats import ConversationFormat
from rlt_data.reward.forward.linear import apply_linear
from rlt_data.reward.forward.memory import ModelShape, read_shape
from rlt_data.reward.forward.packing import PackItem, plan_prefixes
from rlt_data.reward.rewards import derive_parts
from rlt_data.reward.scoring.scorer import Scorer, TokenScores
from rlt_data.reward.scoring.scoring_model import ScoringModel
from rlt_data.reward.scoring.texts import ScoreRequest, ScoringText, build_student_texts, build_teacher_texts
from rlt_data.reward.settings import RewardSettings

HEADER = (
    "| case | way | ratio | tokens/s | GFLOP/s | of GEMM peak | largest reward difference |\n"
    "|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=CASES, help="repeatable; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", nargs=2, metavar=("CASE", "WAY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    pin_to_one_core()
    if given.memory_of:
        print(measure_memory(*given.memory_of))
        return
    print(describe_machine())
    print(HEADER, flush=True)
    for name in given.case or CASES:
        run_case(name, CASES[name], given.rounds)


def run_case(name: str, case: Case, rounds: int) -> None:
    format = build_format()
    student, teacher = build_models(case.shape)
    requests = build_requests(case)
    ways = build_ways(format, student, teacher)
    baseline: list[float] = []
    times: dict[str, list[float]] = {way: [] for way in ways}
    found: dict[str, list[TokenScores]] = {}
    for scorer in ways.values():
        run_scorer(scorer, requests[:2])
    expected: list[BaselineScore] = []
    rates: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(rounds):
        seconds, expected = take_time(lambda: score_baseline(format, student, teacher, requests))
        baseline.append(seconds)
        for way, scorer in ways.items():
            seconds, found[way] = take_time(lambda scorer=scorer: run_scorer(scorer, requests))
            times[way].append(seconds)
            for dtype, measured in rates.items():
                measured.append(measure_peak(dtype))
    peaks = {dtype: statistics.median(measured) for dtype, measured in rates.items()}
    tokens = sum(score.tokens for score in expected)
    print(f"| {name} | baseline | 1.00 | {tokens / statistics.median(baseline):.0f} | | | |")
    for way, scorer in ways.items():
        seconds = statistics.median(times[way])
        rate = count_operations(format, scorer, requests) / seconds
        dtype = torch.bfloat16 if way.startswith("bfloat16") else torch.float32
        ratio = statistics.median(baseline) / seconds
        gap = find_gap(expected, found[way]) if scorer.teacher is not None else None
        print(
            f"| {name} | {way} | {ratio:.2f} | {tokens / seconds:.0f} | {rate / 1e9:.0f} | "
            f"{rate / peaks[dtype]:.0%} | {'' if gap is None else format_gap(gap)} |",
            flush=True,
        )
    shown = ", ".join(f"{str(dtype)[6:]} {peak / 1e9:.0f}" for dtype, peak in peaks.items())
    print(f"  {name}: GEMM peak, GFLOP/s: {shown}")
    print_memory(name)


def build_ways(format: ConversationFormat, student: ScoringModel, teacher: ScoringModel) -> dict[str, Scorer]:
    """Build the scorers that are compared with the baseline."""
    half_student, half_teacher = (
        replace(scoring, model=copy.deepcopy(scoring.model).to(torch.bfloat16))
        for scoring in (student, teacher)
    )
    return {
        "float32": Scorer(format, [student], teacher),
        "float32, exact divergence": Scorer(format, [student], teacher, exact=True),
        "float32, teacher log-probabilities stored": Scorer(format, [student]),
        "bfloat16": Scorer(format, [half_student], half_teacher),
        "bfloat16, teacher log-probabilities stored": Scorer(format, [half_student]),
    }


def run_scorer(scorer: Scorer, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
    return [result for result in scorer.score(requests) if isinstance(result, TokenScores)]


def take_time(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def find_gap(expected: Sequence[BaselineScore], found: Sequence[TokenScores]) -> float:
    """Largest difference of the paper's reward, nats."""
    settings = RewardSettings()
    reference = [
        replace(
            scores,
            solution_logprobs=score.solution_logprobs,
            think_student=score.think_student,
            think_teacher=score.think_teacher,
        )
        for score, scores in zip(expected, found, strict=True)
    ]
    pairs = zip(derive_parts(reference, settings), derive_parts(found, settings), strict=True)
    return max(abs((a.reward or 0.0) - (b.reward or 0.0)) for a, b in pairs)


def count_operations(format: ConversationFormat, scorer: Scorer, requests: Sequence[ScoreRequest]) -> float:
    """Count the necessary floating-point operations: each prompt once, causal pairs, scored rows."""
    total = 0.0
    for runner in scorer.students:
        texts = build_student_texts(format, runner.scoring.tokenizer, requests)
        total += count_model_operations(read_shape(runner.scoring.model), texts)
    if scorer.teacher is not None:
        texts = build_teacher_texts(format, scorer.teacher.scoring.tokenizer, requests)
        total += count_model_operations(read_shape(scorer.teacher.scoring.model), texts)
    return total


def count_model_operations(shape: ModelShape, texts: Sequence[Any]) -> float:
    items = [
        PackItem(i, text.token_ids, text.first_scored)
        for i, text in enumerate(texts)
        if isinstance(text, ScoringText)
    ]
    rows = sum(len(text.think) + len(text.solution) for text in texts)
    tokens = pairs = 0.0
    done: set[int] = set()
    for text in plan_prefixes(items):
        parts = [(p.start, len(p.token_ids)) for p in text.prefixes if p.number not in done]
        parts.append((text.start, len(text.item.token_ids) - text.start))
        done.update(prefix.number for prefix in text.prefixes)
        tokens += sum(length for _, length in parts)
        pairs += sum(before * length + length**2 / 2 for before, length in parts)
    attention = 4 * shape.layers * shape.heads * shape.head_size * pairs
    return 2 * shape.body_parameters * tokens + attention + 2 * shape.vocabulary * shape.hidden * rows


def measure_peak(dtype: torch.dtype) -> float:
    """Measure the best rate of a few matrix products on this core, operations per second."""
    best = 0.0
    with torch.no_grad():
        for rows, inputs, outputs in ((1024, 512, 4096), (1024, 1024, 1024), (2048, 2048, 2048)):
            x, w = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
            apply_linear(x, w)
            for _ in range(5):
                seconds, _result = take_time(lambda x=x, w=w: apply_linear(x, w))
                best = max(best, 2 * rows * inputs * outputs / seconds)
    return best


def print_memory(name: str) -> None:
    """Print the peak memory beyond the weights, each way in a process of its own."""
    sizes = {}
    for way in ("baseline", "float32", "exact"):
        command = [sys.executable, __file__, "--memory-of", name, way]
        sizes[way] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    shown = ", ".join(f"{way} {size:.0f} MiB ({size / sizes['baseline']:.2f})" for way, size in sizes.items())
    print(f"  {name}: working set beyond the weights: {shown}", flush=True)


def measure_memory(name: str, way: str) -> float:
    """Measure the rise of the peak, MiB, while two texts (baseline) or all (ours) are scored."""
    case = CASES[name]
    format = build_format()
    student, teacher = build_models(case.shape)
    requests = build_requests(case)
    small = [ScoreRequest("small", requests[0].question[:20], "abcd", "abcd")]
    scorer = Scorer(format, [student], teacher, exact=way == "exact")
    run_scorer(scorer, small)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = read_status("VmRSS")
    if way == "baseline":
        score_baseline(format, student, teacher, requests[:2])
    else:
        run_scorer(scorer, requests)
    return read_status("VmHWM") - before


def read_status(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def pin_to_one_core() -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def describe_machine() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = names[0].partition(":")[2].strip() if names else "unknown processor"
    load = os.getloadavg()[0]
    return f"{processor}, one core; torch {torch.__version__}; load average of the machine {load:.1f}"


def format_gap(gap: float) -> str:
    return f"{gap:.1e}"


if __name__ == "__main__":
    main()
