"""Engines whose transactions are savepoints of one transaction, which is rolled back at the end of a test.

A service commits and rolls back as usual, through any number of sessions and connections of the engine. All of them
share one connection to the server.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import NullPool, event

from syntegra_db.client_setting import SETTING
from syntegra_db.errors import UnsupportedInRollback
from syntegra_db.sql import literal
from syntegra_db.testing._options import MARKER

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine
    from sqlalchemy.pool import PoolProxiedConnection

SAVEPOINT = "syntegra_db.savepoint"
ADVICE = f'Mark the test with @pytest.mark.{MARKER}("database").'
# Of AUTOCOMMIT, each statement that succeeds remains, as if it were committed.
ACCEPTED_LEVELS = {"READ COMMITTED", "AUTOCOMMIT"}
READS = ("SELECT", "SHOW", "SET")
# The client of `syntegra_db.tenancy` is not in the view.
SETTINGS = f"""
    SELECT name, setting FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session'
    UNION ALL SELECT {literal(SETTING)}, pg_catalog.current_setting({literal(SETTING)}, true)
"""  # noqa: S608  a constant


@dataclass
class Savepoint:
    """An open transaction of the engine: what was set when it began, and what was committed before."""

    name: str
    commits: int
    settings: dict[str, str | None] = field(default_factory=dict)
    has_written: bool = False


class SharedPool(NullPool):
    """A pool that opens one connection, which is given to all who ask for one and is not closed."""

    def __init__(self, creator: Callable[..., Any], **options: Any) -> None:
        # That of SQLAlchemy, which adapts the one of psycopg under asyncio.
        self.connection: Any = None

        def create(connection_record: Any = None) -> Any:
            if self.connection is None:
                self.connection = creator(connection_record)
                _ignore_close(self.driver_connection)
            elif self.has_failed:
                raise UnsupportedInRollback(
                    "A statement failed in a transaction that is still open, and with the isolation rollback another "
                    f"connection of the engine is in the same transaction. Roll the first one back before. {ADVICE}"
                )
            return self.connection

        super().__init__(create, **options)

    @property
    def driver_connection(self) -> Any:
        """The connection of psycopg."""
        return getattr(self.connection, "driver_connection", self.connection)

    @property
    def has_failed(self) -> bool:
        """Whether a statement failed since the last savepoint."""
        return bool(self.driver_connection.info.transaction_status == TransactionStatus.INERROR)


def _ignore_close(connection: Any) -> None:
    async def close() -> None:
        pass

    connection.close = close if isinstance(connection, psycopg.AsyncConnection) else lambda: None


class SharedTransaction:
    """What the engine's transactions do on the connection of its `SharedPool`; those that are open, oldest first."""

    def __init__(self, engine: Engine) -> None:
        # The pool of the engine is another one after `dispose`, with this one's connection.
        self._pool = cast("SharedPool", engine.pool)
        self._open: list[Savepoint] = []
        self._commits = 0
        self._numbers = itertools.count(1)
        dialect: Any = engine.dialect
        dialect.do_commit, dialect.do_rollback = self._commit, self._roll_back
        dialect.set_isolation_level, dialect.reset_isolation_level = self._accept_level, lambda _: None
        event.listen(engine, "begin", self._begin)
        event.listen(engine, "before_cursor_execute", self._notice_statement)

    def end(self) -> None:
        """Close the connection, so the server rolls everything back; no event loop is needed."""
        if self._pool.connection is not None:
            self._pool.driver_connection.pgconn.finish()

    def _begin(self, connection: Connection) -> Savepoint:
        """Return the savepoint of the connection's transaction, which is created at the first call."""
        info = connection.connection.info
        if SAVEPOINT not in info:
            savepoint = info[SAVEPOINT] = Savepoint(f"syntegra_{next(self._numbers)}", self._commits)
            self._open.append(savepoint)
            self._execute(f"SAVEPOINT {savepoint.name}")
            savepoint.settings = self._read_settings()
        return info[SAVEPOINT]  # type: ignore[no-any-return]  # untyped values

    def _commit(self, connection: PoolProxiedConnection) -> None:
        if (savepoint := self._pop(connection)) is not None:
            self._commits += savepoint.has_written
            self._leave(savepoint)

    def _roll_back(self, connection: PoolProxiedConnection) -> None:
        if (savepoint := self._pop(connection)) is None:
            return
        if savepoint is self._open[-1] and savepoint.commits == self._commits:
            self._open.remove(savepoint)
            self._execute(f"ROLLBACK TO SAVEPOINT {savepoint.name}; RELEASE SAVEPOINT {savepoint.name}")
        elif savepoint.has_written or self._pool.has_failed:
            self._open.remove(savepoint)
            raise UnsupportedInRollback(
                "A transaction of the test was rolled back after another one, which began later, was committed or "
                "opened. With the isolation rollback both are in one transaction, and the other one would be lost too. "
                f"{ADVICE}",
            )
        else:
            self._leave(savepoint)

    def _pop(self, connection: PoolProxiedConnection) -> Savepoint | None:
        # Without an open transaction, it may be the connection on which SQLAlchemy reads the server's version.
        return connection.info.pop(SAVEPOINT, None) if self._open else None

    def _leave(self, savepoint: Savepoint) -> None:
        """End a transaction and keep what it wrote, but no setting that ends with a transaction."""
        is_newest = savepoint is self._open[-1]
        self._open.remove(savepoint)
        if is_newest:
            # Otherwise it would release the newer ones too.
            self._execute(f"RELEASE SAVEPOINT {savepoint.name}")
        now = self._read_settings()
        for name in now.keys() | savepoint.settings.keys():
            before = savepoint.settings.get(name)
            if before is None and now.get(name):
                self._execute(f"RESET {name}")
            elif before is not None and before != now.get(name):
                self._execute(f"SELECT pg_catalog.set_config({literal(name)}, {literal(before)}, true)")

    def _notice_statement(self, connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        # The statement may be of a listener to `begin`, which sets what ends with the transaction.
        savepoint = self._begin(connection)
        if not statement.lstrip().upper().startswith(READS):
            savepoint.has_written = True

    @staticmethod
    def _accept_level(_connection: Any, level: str) -> None:
        if level not in ACCEPTED_LEVELS:
            raise UnsupportedInRollback(
                f"A connection asks for the isolation level {level}. With the isolation rollback, the transaction of "
                f"the test is READ COMMITTED. {ADVICE}",
            )

    def _read_settings(self) -> dict[str, str | None]:
        return dict(self._execute(SETTINGS))

    def _execute(self, statement: str) -> list[Any]:
        cursor = self._pool.connection.cursor()
        try:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            cursor.close()
