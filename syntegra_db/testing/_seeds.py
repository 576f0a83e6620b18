"""The seed of the factories: each test has one, whatever runs before it."""

from __future__ import annotations

import sys
import zlib

FACTORIES = "syntegra_db.testing.factories"
_seed = 0


def start(test: str) -> None:
    """Begin the test with this name: its seed depends on the name only."""
    global _seed  # noqa: PLW0603  the factories may be imported later, in the test
    _seed = zlib.crc32(test.encode())
    if (factories := sys.modules.get(FACTORIES)) is not None:
        factories.seed(_seed)


def current() -> int:
    """Return the seed of the running test, 0 without one."""
    return _seed
