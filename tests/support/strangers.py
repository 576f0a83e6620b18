"""A role that may create objects in a database, and the code that it created."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, LiteralString

import psycopg
from psycopg import sql

from syntegra_db.connections import conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database, Server

STRANGER = "syntegra_mallory"
# A call advances a sequence, which a rollback does not undo.
CODE = """
    CREATE SCHEMA foreign_code;
    GRANT USAGE ON SCHEMA foreign_code TO PUBLIC;
    CREATE SEQUENCE foreign_code.calls;
    GRANT USAGE ON foreign_code.calls TO PUBLIC;
    CREATE FUNCTION foreign_code.call() RETURNS bool LANGUAGE sql AS
      'SELECT nextval(''foreign_code.calls'') IS NOT NULL';
    CREATE FUNCTION foreign_code.call(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
      'BEGIN PERFORM nextval(''foreign_code.calls''); RETURN $1; END';
    CREATE FUNCTION foreign_code.act() RETURNS trigger LANGUAGE plpgsql AS
      'BEGIN PERFORM nextval(''foreign_code.calls''); RETURN NEW; END';
    CREATE TYPE foreign_code.mood AS ENUM ('001');
    CREATE FUNCTION foreign_code.read(foreign_code.mood) RETURNS text LANGUAGE plpgsql AS
      'BEGIN PERFORM nextval(''foreign_code.calls''); RETURN ''001''; END';
    CREATE CAST (foreign_code.mood AS text) WITH FUNCTION foreign_code.read AS IMPLICIT;
    CREATE DOMAIN foreign_code.word AS varchar(32) CHECK (foreign_code.call());
"""
VERSION_TABLE: LiteralString = (
    "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY "
    "(version_num))"
)


@contextmanager
def strange_database(server: Server) -> Iterator[tuple[Database, psycopg.Connection[tuple[object, ...]]]]:
    """Yield an empty database, and a session of a role that may create objects in its schema."""
    with server.role(STRANGER), server.database() as database:
        database.execute(
            sql.SQL("GRANT CREATE ON SCHEMA public TO {0}; GRANT CREATE ON DATABASE {1} TO {0}").format(
                sql.Identifier(STRANGER), sql.Identifier(database.name)
            )
        )
        with psycopg.connect(conninfo(database.url_as(STRANGER)), autocommit=True) as connection:
            connection.execute(CODE)
            yield database, connection


def has_called(database: Database) -> bool:
    return bool(database.query("SELECT is_called FROM foreign_code.calls")[0][0])
