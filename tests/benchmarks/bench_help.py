"""Time of `rlt-data --help` over that of `python -c "import typer"`; the aim is a ratio of at most 2.

The commands take turns in one run and medians are compared, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 15


def main() -> None:
    program = str(Path(sys.executable).with_name("rlt-data"))
    commands = {
        "import typer": [sys.executable, "-c", "import typer"],
        "import rlt_data": [sys.executable, "-c", "import rlt_data"],
        "rlt-data --help": [program, "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    for name, median in medians.items():
        ratio = median / medians["import typer"]
        print(f"{name:16} {median * 1000:6.0f} ms  {ratio:.2f} of import typer")


if __name__ == "__main__":
    main()
