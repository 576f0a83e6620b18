"""How `pytest --numprocesses 2 --dist loadfile` distributes the tests: by file, but long matrices by case."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

# Their cases take minutes together, and each is independent of the others.
DISTRIBUTED_BY_CASE = ("tests/faults/test_matrix.py::", "tests/evolution/test_every_kind.py::")


class FileScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """The tests of a file run in one process, except those of `DISTRIBUTED_BY_CASE`."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(DISTRIBUTED_BY_CASE) else str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling | None:
    """Return the scheduler for `--dist loadfile`."""
    return FileScheduling(config, log) if config.getoption("dist") == "loadfile" else None
