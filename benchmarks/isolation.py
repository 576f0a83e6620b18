"""Measure what the fixtures of `syntegra_db.testing` cost: the server, the template, and each test in both isolations.

    python benchmarks/isolation.py [--rounds 15]

A test inserts a row, commits it and reads it. The first two figures are of one run, the others medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import select

from syntegra_db.database import create_engine, session_factory
from syntegra_db.models import Cluster
from syntegra_db.testing._databases import migrated_template, temporary_database
from syntegra_db.testing._rollback import SharedPool, SharedTransaction
from syntegra_db.testing._servers import chosen_server
from syntegra_db.testing.factories import ClusterFactory, add

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

durations: dict[str, list[float]] = {}


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Add the duration of the block."""
    started = time.perf_counter()
    yield
    durations.setdefault(name, []).append(time.perf_counter() - started)


def use(engine: Engine) -> None:
    """Do what a test does."""
    with session_factory(engine)() as session:
        add(session, ClusterFactory)
        session.commit()
        session.scalars(select(Cluster)).one()


def main(rounds: int) -> None:
    """Measure and print."""
    started = time.perf_counter()
    with chosen_server("embedded", None) as server:
        durations["server"] = [time.perf_counter() - started]
        started = time.perf_counter()
        with migrated_template(server, lambda _: None) as template, temporary_database(server, template) as shared:
            durations["template and one copy"] = [time.perf_counter() - started]
            for _ in range(rounds):
                with timed("copy and drop"), temporary_database(server, template):
                    pass
                with timed("test, isolation database"), temporary_database(server, template) as url:
                    engine = create_engine(url)
                    use(engine)
                    engine.dispose()
                with timed("test, isolation rollback"):
                    engine = create_engine(shared, poolclass=SharedPool)
                    transaction = SharedTransaction(engine)
                    use(engine)
                    transaction.end()
    for name, values in durations.items():
        print(f"{name}: {statistics.median(values) * 1000:.0f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    main(parser.parse_args().rounds)
