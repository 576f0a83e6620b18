"""The real servers that the tests run on."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql

from syntegra_db import embedded
from syntegra_db.connections import conninfo, unpooled_engine
from syntegra_db.settings import parse_url
from syntegra_db.testing._databases import execute, temporary_database
from syntegra_db.testing._servers import embedded_data

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

# Has the characters that URLs, psql, .env files and shells treat specially.
ROLE_PASSWORD = "p%40@:/ w'ord%"  # noqa: S105  of roles that live for one test


@dataclass
class Database:
    """A database for one test; its user is an administrator of the server."""

    url: URL
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = unpooled_engine(self.url)

    @property
    def name(self) -> str:
        assert self.url.database is not None
        return self.url.database

    @property
    def environment_url(self) -> str:
        """Return the URL in the form of DATABASE_URL."""
        return self.url.render_as_string(hide_password=False)

    def url_as(self, role: str) -> URL:
        """Return the URL of the same database for a role that `Server.role` created."""
        return self.url.set(username=role, password=ROLE_PASSWORD)

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a psycopg connection in autocommit."""
        return psycopg.connect(conninfo(self.url), autocommit=True)

    def execute(self, statements: LiteralString | sql.Composed) -> None:
        with self.connect() as connection:
            connection.execute(statements)

    def query(self, statement: LiteralString) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(statement).fetchall()


class Server:
    """A server with an administrator's URL, on which tests create databases."""

    def __init__(self, url: URL) -> None:
        self.url = url

    def execute(self, statement: LiteralString | sql.Composed) -> None:
        execute(self.url, statement)

    @contextmanager
    def database(
        self, template: str = "template0", name: str | None = None, options: LiteralString = ""
    ) -> Iterator[Database]:
        """Yield a database copied from `template`; drop it and end its sessions afterwards."""
        with temporary_database(self.url, template, name, options) as url:
            yield Database(url)

    @contextmanager
    def role(self, name: str) -> Iterator[str]:
        """Yield a role that may only log in; drop it afterwards, when it must own nothing."""
        identifier = sql.Identifier(name)
        self.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(identifier))
        self.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(identifier, ROLE_PASSWORD))
        try:
            yield name
        finally:
            self.execute(sql.SQL("DROP ROLE {}").format(identifier))


class EmbeddedServer(Server):
    """An embedded server, which a test can stop as a power failure does; not the server that other tests use."""

    def __init__(self, data: Path, version: int) -> None:
        super().__init__(parse_url(embedded.start_server(data, version)))
        self.data = data
        self._version = version

    def stop_immediately(self) -> None:
        """Stop the server without a checkpoint; it recovers at the next start."""
        pid_file = self.data / "postmaster.pid"
        os.kill(int(pid_file.read_text(encoding="utf-8").split()[0]), signal.SIGQUIT)
        deadline = time.monotonic() + 30
        while pid_file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def start(self) -> None:
        """Start the server again."""
        embedded.start_server(self.data, self._version)


@contextmanager
def embedded_server(version: int | None, parent: Path | None = None) -> Iterator[EmbeddedServer]:
    """Yield an embedded PostgreSQL in a temporary directory, in `parent` if given; by default the newest."""
    version = version or embedded.DEFAULT_VERSION
    with embedded_data(version, parent) as data:
        yield EmbeddedServer(data, version)
