"""The forecast of a scoring run against its actual time and peak memory, on one core.

Run it as `python tests/benchmarks/bench_forecast.py [--case NAME]...`. Each corpus has a process of its own.
Nothing is asserted: it prints a table, which BENCHMARKS.md explains.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from bench_score import describe_machine, pin_to_one_core, read_status, run_scorer
from workload import CASES, build_format, build_models, build_requests

from rlt_data.reward.forecast import forecast_run
from rlt_data.reward.scoring.scorer import Scorer

# Questions of each case; their explanations are up to a quarter longer or shorter than the case's.
QUESTIONS = {"110M-152k": 5, "48M-32k": 10, "48M-2000": 8, "1M": 160}
HEADER = (
    "| corpus | forecast, s | actual, s | ratio | forecast peak, MiB | actual peak, MiB | ratio |\n"
    "|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=CASES, help="repeatable; default: all")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    pin_to_one_core()
    if given.alone:
        print(compare(given.case[0]))
        return
    print(describe_machine())
    print(HEADER, flush=True)
    for name in given.case or CASES:
        command = [sys.executable, __file__, "--alone", "--case", name]
        print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip(), flush=True)


def compare(name: str) -> str:
    """Forecast the scoring of a case's corpus, score it, and return both as a row of the table."""
    case = replace(CASES[name], questions=QUESTIONS[name])
    student, teacher = build_models(case.shape)
    requests = build_requests(case)
    scorer = Scorer(build_format(), [student], teacher)
    forecast = forecast_run(scorer, requests)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    started = time.perf_counter()
    run_scorer(scorer, requests)
    seconds, peak = time.perf_counter() - started, read_status("VmHWM")
    expected = (forecast.peak_bytes or 0) / 2**20
    return (
        f"| {name}, {len(requests)} texts | {forecast.seconds:.1f} | {seconds:.1f} | "
        f"{forecast.seconds / seconds:.2f} | "
        f"{expected:.0f} | {peak:.0f} | {expected / peak:.2f} |"
    )


if __name__ == "__main__":
    main()
