"""The sentence that names who may change the tables: it follows their owners, and members of these."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from support.sample_rows import TABLES
from syntegra_db.catalog import who_may_change_tables
from syntegra_db.connections import connect, unpooled_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database, Server

OWNER, SECOND, MEMBER, STRANGER = (f"syntegra_test_{name}" for name in ("owner", "second", "member", "stranger"))
ALL = (*TABLES, "alembic_version")


@pytest.fixture
def owned(server: Server, migrated_template: str) -> Iterator[Database]:
    """Yield a database with the roles above, of which MEMBER is a member of OWNER; the tables belong to none yet."""
    with ExitStack() as stack:
        for role in (OWNER, SECOND, MEMBER, STRANGER):
            stack.enter_context(server.role(role))
        server.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(OWNER), sql.Identifier(MEMBER)))
        yield stack.enter_context(server.database(migrated_template))


def give(database: Database, role: str, *tables: str) -> None:
    for table in tables:
        database.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(sql.Identifier(table), sql.Identifier(role)))


def who_may(database: Database, role: str) -> str | None:
    with connect(unpooled_engine(database.url_as(role))) as connection:
        return who_may_change_tables(connection)


def test_owner_and_its_members_and_administrators_may(owned: Database) -> None:
    give(owned, OWNER, *ALL)
    for role in (OWNER, MEMBER):
        assert who_may(owned, role) is None
    with connect(owned.engine) as connection:
        assert who_may_change_tables(connection) is None
    assert who_may(owned, STRANGER) == f"Run this as {OWNER}, who owns the tables, or as an administrator."


def test_owner_of_the_version_table_only_is_not_called_owner_of_the_tables(owned: Database) -> None:
    give(owned, OWNER, *TABLES)
    give(owned, SECOND, "alembic_version")
    assert who_may(owned, MEMBER) == f"Run this as {SECOND}, who owns alembic_version, or as an administrator."
    names = f"{SECOND} and {OWNER}"
    assert who_may(owned, STRANGER) == f"Run this as a member of {names}, who own the tables, or as an administrator."


def test_owners_of_some_tables_are_named_with_them(owned: Database) -> None:
    give(owned, OWNER, *ALL)
    give(owned, SECOND, "clusters", "kpi_summary")
    names = "clusters, kpi_summary"
    assert who_may(owned, OWNER) == f"Run this as {SECOND}, who owns {names}, or as an administrator."
