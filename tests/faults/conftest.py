"""Fixtures of the fault tests: a server that a test may stop or configure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.servers import embedded_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import EmbeddedServer


@pytest.fixture
def own_server(pytestconfig: pytest.Config) -> Iterator[EmbeddedServer]:
    """Yield an embedded server that no other test uses, and whose commits survive a crash."""
    with embedded_server(pytestconfig.getoption("--postgres")) as server:
        server.execute("ALTER SYSTEM SET synchronous_commit = on")
        server.execute("SELECT pg_reload_conf()")
        yield server
