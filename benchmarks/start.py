"""What importing the models costs beside importing what they are made of, in processes of their own.

    python benchmarks/start.py [--rounds 31]

Medians of interleaved rounds; the time of an empty process is taken off both.
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
    """Return the seconds of a process that runs `program`."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603  of PROGRAMS
    return time.perf_counter() - began


def main(rounds: int) -> None:
    """Measure and print."""
    taken: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for program in PROGRAMS.values():
        seconds(program)
    for _ in range(rounds):
        for name, program in PROGRAMS.items():
            taken[name].append(seconds(program))
    nothing, parts, models = (statistics.median(taken[name]) for name in PROGRAMS)
    print(
        f"sqlalchemy.orm and pgvector.sqlalchemy: {parts - nothing:.3f} s; syntegra_db.models: {models - nothing:.3f} s"
    )
    print(f"Ratio: {(models - nothing) / (parts - nothing):.2f}; of whole processes: {models / parts:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    main(parser.parse_args().rounds)
