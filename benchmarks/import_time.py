"""Compare the import time of the models with the import time of their dependencies, in separate processes.

    python benchmarks/import_time.py [--rounds 31]

Medians of interleaved rounds; the time of an empty process is subtracted from both.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

PROGRAMS = {
    "nothing": "pass",
    "sqlalchemy.orm and pgvector.sqlalchemy": "import sqlalchemy.orm, pgvector.sqlalchemy",
    "syntegra_db.models": "import syntegra_db.models",
}


def seconds(program: str) -> float:
    """Return the duration of a process that runs `program`, in seconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603  one of PROGRAMS
    return time.perf_counter() - started


def main(rounds: int) -> None:
    """Measure and print."""
    durations: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for program in PROGRAMS.values():
        seconds(program)
    for _ in range(rounds):
        for name, program in PROGRAMS.items():
            durations[name].append(seconds(program))
    empty, dependencies, models = (statistics.median(durations[name]) for name in PROGRAMS)
    print(
        f"sqlalchemy.orm and pgvector.sqlalchemy: {dependencies - empty:.3f} s; "
        f"syntegra_db.models: {models - empty:.3f} s"
    )
    print(f"Ratio: {(models - empty) / (dependencies - empty):.2f}; of whole processes: {models / dependencies:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    main(parser.parse_args().rounds)
