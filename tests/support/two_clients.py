"""A database with rows of the clients 7 and 8, the logins that see those of 7 or none, and what these must see."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql
from sqlalchemy.orm import Session

from support.bulk_rows import FULL
from support.clients import CLIENT_TABLES, READER, SERVICE, protected_database
from support.sample_rows import TABLES
from syntegra_db.bulk import copy_rows
from syntegra_db.models import Base, TrendSignal
from syntegra_db.tenancy import bind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database, Server

BOUND = "syntegra_test_bound"
# Schemas with the same tables, for the owner: only the rows of client 7, and no rows.
CLIENT_7, NO_CLIENT = "client_7", "no_client"
# Schema with one row of client 8 for each table, which every login knows.
KNOWN = "known"
MODELS: dict[str, type[Base]] = {model.__tablename__: model for model in FULL if model is not TrendSignal}
WITH_SOURCE = tuple(table for table in CLIENT_TABLES if "source_id" in Base.metadata.tables[table].columns)


class Viewer(NamedTuple):
    """A login, the client that it sets, and the schema with the rows that it must see."""

    login: str
    setting: str
    sees: str

    @property
    def writes(self) -> bool:
        """Whether the login may write rows of a client."""
        return self.login == SERVICE


VIEWERS = {
    "service": Viewer(SERVICE, "7", CLIENT_7),
    "reader": Viewer(READER, "7", CLIENT_7),
    # Bound to client 7, whatever it sets.
    "bound": Viewer(BOUND, "8", CLIENT_7),
    "service without client": Viewer(SERVICE, "", NO_CLIENT),
}
# The versions of the rows of all other clients and those without a client; each change makes a new version, and those
# of client 7 are at other places.
VERSIONS = (
    "SELECT '{table}', (SELECT string_agg(concat(id, ctid, {client}), ' ' ORDER BY id) FROM public.{table}{condition})"
)
ROWS_OF_OTHERS = " UNION ALL ".join(
    VERSIONS.format(table=table, client=client, condition=condition)
    for table, client, condition in [
        *((name, "client_id", " WHERE client_id <> 7") for name in CLIENT_TABLES),
        ("trend_signals", "''", ""),
    ]
)
FUNCTION = f"""
    CREATE FUNCTION rows_of_others() RETURNS TABLE (name text, versions text) LANGUAGE sql SECURITY DEFINER
    AS $function$ {ROWS_OF_OTHERS} $function$
"""
FIRST_SOURCE: LiteralString = """
    UPDATE {table} SET source_id = (SELECT min(id) FROM data_sources AS s WHERE s.client_id = {table}.client_id)
"""
COPIES: LiteralString = """
    CREATE TABLE {known} (LIKE {table} INCLUDING ALL);
    INSERT INTO {known} SELECT * FROM {table} WHERE client_id = 8 ORDER BY id LIMIT 1;
    GRANT SELECT ON {known} TO PUBLIC
"""
VIEWS: LiteralString = """
    CREATE TABLE {copy} (LIKE {table} INCLUDING ALL);
    INSERT INTO {copy} SELECT * FROM {table} {condition};
    CREATE VIEW {view} WITH (security_invoker = true) AS SELECT * FROM {copy}
"""


@contextmanager
def database_of_two_clients(server: Server, template: str) -> Iterator[Database]:
    """Yield a database with policies, known rows and the logins of `VIEWERS`."""
    with protected_database(server, template) as database, server.role(BOUND):
        bind(database.engine, BOUND, 7)
        with Session(database.engine) as session:
            for model in MODELS.values():
                copy_rows(session, model, [{**FULL[model], "client_id": client} for client in (7, 8, 8)])
            session.commit()
        _add_objects(database)
        before = rows(database)
        yield database
        assert rows(database) == before


def _add_objects(database: Database) -> None:
    with database.connect() as connection:
        for table in map(sql.Identifier, WITH_SOURCE):
            connection.execute(sql.SQL(FIRST_SOURCE).format(table=table))
        connection.execute(FUNCTION.encode())
        connection.execute(
            f"CREATE SCHEMA {CLIENT_7}; CREATE SCHEMA {NO_CLIENT}; CREATE SCHEMA {KNOWN};"
            f" GRANT USAGE ON SCHEMA {KNOWN} TO PUBLIC"
        )
        for name in CLIENT_TABLES:
            table = sql.Identifier("public", name)
            connection.execute(sql.SQL(COPIES).format(known=sql.Identifier(KNOWN, name), table=table))
            for schema, condition in ((CLIENT_7, "WHERE client_id = 7"), (NO_CLIENT, "WHERE false")):
                copy, view = sql.Identifier(schema, name), sql.Identifier(schema, f"view_of_{name}")
                connection.execute(
                    sql.SQL(VIEWS).format(copy=copy, view=view, table=table, condition=sql.SQL(condition))
                )
            view = sql.Identifier("public", f"view_of_{name}")
            connection.execute(
                sql.SQL("CREATE VIEW {view} WITH (security_invoker = true) AS SELECT * FROM {table}").format(
                    view=view, table=table
                )
            )
            connection.execute(sql.SQL("GRANT SELECT ON {} TO PUBLIC").format(view))
        connection.execute("ANALYZE")


def rows(database: Database) -> list[tuple[Any, ...]]:
    """Return all rows as the owner sees them."""
    with database.connect() as connection:
        return [
            row
            for table in TABLES
            for row in connection.execute(
                sql.SQL("SELECT rows::text FROM {} AS rows ORDER BY id").format(sql.Identifier(table))
            )
        ]


def rows_of_others(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """Return the versions of the rows that client 7 must not change, in the state of the transaction."""
    return connection.execute("SELECT * FROM public.rows_of_others()").fetchall()
