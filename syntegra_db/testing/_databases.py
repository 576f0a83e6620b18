"""The databases of a run of tests: a migrated template and copies of it, with names that no other process uses."""

from __future__ import annotations

import itertools
import secrets
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, LiteralString

import psycopg
from psycopg import sql

from syntegra_db import migrations
from syntegra_db.connections import conninfo
from syntegra_db.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import URL

PREFIX = "syntegra_test_"
# Of this process: the names of its databases begin with it, and one of its sessions has it as application_name.
RUN = f"{PREFIX}{secrets.token_hex(4)}"
# The databases of this role whose run has no session any more.
ABANDONED = """
    SELECT datname FROM pg_database JOIN pg_roles ON pg_roles.oid = datdba
    WHERE rolname = current_user AND pg_database.datname ~ '^syntegra_test_[0-9a-f]{8}_'
      AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = left(pg_database.datname, 22))
"""
OTHER_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
CLOSE_TIMEOUT_SECONDS = 5

_numbers = itertools.count(1)


def execute(server: URL, statement: LiteralString | sql.Composed) -> None:
    """Execute `statement` in autocommit."""
    with psycopg.connect(conninfo(server), autocommit=True) as connection:
        connection.execute(statement)


@contextmanager
def temporary_database(
    server: URL,
    template: str = "template0",
    name: str | None = None,
    options: LiteralString = "",
) -> Iterator[URL]:
    """Yield the URL of a database copied from `template`; drop it and end its sessions afterwards.

    A database called `name` is dropped first. `options` are those of CREATE DATABASE.
    """
    name = name or f"{RUN}_{next(_numbers)}"
    identifier = sql.Identifier(name)
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(identifier)
    # Half the time of the default, which writes each page to the log.
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy " + options)
    with psycopg.connect(conninfo(server), autocommit=True) as connection:
        connection.execute(drop)
        connection.execute(create.format(identifier, sql.Identifier(template)))
    try:
        yield server.set(database=name)
    finally:
        execute(server, drop)


@contextmanager
def migrated_template(server: URL, migrate: Callable[[URL], object]) -> Iterator[str]:
    """Yield the name of a database at head on which `migrate` was called, for copies.

    Raises:
        SettingsError: `migrate` left a connection open.
        SyntegraDBError: the upgrade failed; see `migrations.upgrade`.
    """
    with temporary_database(server, name=f"{RUN}_template") as url:
        migrations.upgrade(url=url)
        migrate(url)
        _wait_for_no_session(server, str(url.database))
        yield str(url.database)


def _wait_for_no_session(server: URL, database: str) -> None:
    """Wait until the database can be copied; a closed connection ends on the server a moment later."""
    deadline = time.monotonic() + CLOSE_TIMEOUT_SECONDS
    with psycopg.connect(conninfo(server), autocommit=True) as connection:
        while connection.execute(OTHER_SESSIONS, (database,)).fetchone() != (0,):
            if time.monotonic() > deadline:
                raise SettingsError(
                    "The fixture syntegra_migrate left a connection to its database open, so it cannot be copied. "
                    "Dispose of its engine before it returns, or use NullPool.",
                )
            time.sleep(0.02)


@contextmanager
def claim(server: URL) -> Iterator[None]:
    """Drop the databases of runs that were killed; show with a session that this run is not.

    Databases are those of all processes that use this server, such as workers of xdist. A run has a session from before
    its first database until after its last one.
    """
    options = {"application_name": RUN, "options": "-c idle_session_timeout=0"}
    with psycopg.connect(conninfo(server), autocommit=True, **options) as connection:  # type: ignore[arg-type]  # of libpq
        for (name,) in connection.execute(ABANDONED).fetchall():
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        yield
