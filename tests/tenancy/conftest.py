"""Fixtures of the tests with separated clients: a database with policies, and real logins of the group roles."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from support.logins import Logins, drop_group_roles
from syntegra_db.client_policies import DEFAULT_PREFIX
from syntegra_db.tenancy import enable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database, Server


@pytest.fixture
def no_group_roles(server: Server) -> Iterator[None]:
    """Let the test begin and end without group roles, which belong to the whole server; first of its fixtures."""
    drop_group_roles(server, DEFAULT_PREFIX)
    yield
    drop_group_roles(server, DEFAULT_PREFIX)


@pytest.fixture
def logins(server: Server, no_group_roles: None) -> Iterator[Logins]:  # noqa: ARG001  it runs first
    """Create logins, and drop them at the end."""
    with ExitStack() as stack:
        yield Logins(server, stack)


@pytest.fixture
def separated(logins: Logins, database: Database) -> Database:  # noqa: ARG001  the roles are dropped after the database
    """Return a database at head in which `tenancy enable` was run."""
    enable(database.engine)
    return database
