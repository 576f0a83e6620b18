"""What a service asks of the database when it starts: a revision or a later one, with only expansions in between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from support.revisions import AFTER_HEAD, HEAD
from syntegra_db.database import create_async_engine
from syntegra_db.errors import DatabaseAhead, DatabaseBehind, RevisionError
from syntegra_db.migrations import async_require_revision, downgrade, require_revision

if TYPE_CHECKING:
    from support.servers import Database

SECOND = f"{int(HEAD) + 2:03}"


def at_revision(database: Database, revision: str, oldest: str | None) -> None:
    """Write what a newer package records of `revision`: the oldest services that work on it, if not only its own."""
    database.execute(sql.SQL("UPDATE alembic_version SET version_num = {}").format(revision))
    comment = f"Services of revision {oldest} and later work on revision {revision}." if oldest else None
    database.execute(sql.SQL("COMMENT ON TABLE alembic_version IS {}").format(comment))


def test_older_revision_is_enough_if_the_service_says_so(database_003: Database) -> None:
    downgrade("002", database_003.url)
    for revision in ("001", "002"):
        require_revision(database_003.engine, at_least=revision)
    with pytest.raises(DatabaseBehind, match="at revision 002, but revision 003 "):
        require_revision(database_003.engine, at_least="003")
    downgrade("base", database_003.url)
    with pytest.raises(DatabaseBehind, match="at no revision, but revision 001 or later is required"):
        require_revision(database_003.engine, at_least="001")


@pytest.mark.parametrize("revision", ["", "777", "head", "base", "-1", "003-1"])
def test_revision_that_the_package_does_not_have_is_an_error(database: Database, revision: str) -> None:
    with pytest.raises(RevisionError, match="There is no revision"):
        require_revision(database.engine, at_least=revision)


@pytest.mark.parametrize(
    ("reached", "oldest"), [(AFTER_HEAD, HEAD), (AFTER_HEAD, "001"), (SECOND, HEAD), (SECOND, "002")]
)
def test_expansions_that_the_package_does_not_know_are_accepted(database: Database, reached: str, oldest: str) -> None:
    at_revision(database, reached, oldest)
    for needed in ("001", HEAD):
        require_revision(database.engine, at_least=needed)
    with database.engine.connect() as connection:
        require_revision(connection, at_least=HEAD)


@pytest.mark.parametrize(("reached", "oldest"), [(AFTER_HEAD, None), (SECOND, AFTER_HEAD)])
def test_contraction_that_the_package_does_not_know_is_rejected(
    database: Database, reached: str, oldest: str | None
) -> None:
    at_revision(database, reached, oldest)
    for needed in ("001", HEAD):
        with pytest.raises(DatabaseAhead, match=f"at revision {reached}.* after {HEAD} is a contraction"):
            require_revision(database.engine, at_least=needed)


def test_asyncio_has_the_same_check(database: Database) -> None:
    async def check(at_least: str) -> None:
        engine = create_async_engine(database.url)
        try:
            await async_require_revision(engine, at_least=at_least)
            async with engine.connect() as connection:
                await async_require_revision(connection, at_least=at_least)
        finally:
            await engine.dispose()

    asyncio.run(check(HEAD))
    downgrade("001", database.url)
    asyncio.run(check("001"))
    with pytest.raises(DatabaseBehind):
        asyncio.run(check("002"))
