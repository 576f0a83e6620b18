"""What a statement does as each login of a database with two clients, compared with what the login must see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql

from support.two_clients import KNOWN, Viewer, rows_of_others
from syntegra_db.models import Base

if TYPE_CHECKING:
    from collections.abc import Callable

Connection = psycopg.Connection[Any]


def filled(statement: LiteralString, table: str, source: int | None = None) -> sql.Composed:
    """Return a statement about `table`; the row of `{known}` can be inserted for client 7 and with another source."""
    columns = [column.name for column in Base.metadata.tables[table].columns if column.name != "id"]

    def selected(**values: int | None) -> sql.Composed:
        return sql.SQL(", ").join(
            sql.Literal(values[name]) if name in values else sql.Identifier(name) for name in columns
        )

    return sql.SQL(statement).format(
        t=sql.Identifier(table),
        name=table,
        source=source,
        view=sql.Identifier(f"view_of_{table}"),
        known=sql.Identifier(KNOWN, table),
        columns=selected(),
        columns_for_7=selected(client_id=7, source_id=source),
        columns_for_8=selected(client_id=8),
        known_columns=sql.SQL(", ").join(sql.Identifier("k", name) for name in columns),
        sequence=sql.Identifier(f"{table}_id_seq"),
    )


def results(connection: Connection, statement: sql.Composed) -> list[str]:
    """Return the rows of all statements in `statement`, and the numbers of rows that each found or changed."""
    with connection.cursor() as cursor:
        if statement.as_string().startswith("COPY"):
            with cursor.copy(statement) as copy:
                return sorted(bytes(line).decode() for line in copy)
        cursor.execute(statement)
        found = []
        while True:
            found += [str(row) for row in cursor.fetchall()] if cursor.description else []
            found.append(str(cursor.statusmessage))
            if not cursor.nextset():
                return sorted(found)


def attempt(connection: Connection, statement: sql.Composed) -> list[str] | str:
    """Return the results, or the SQLSTATE of the error, which undoes what the statement changed."""
    try:
        with connection.transaction():
            return results(connection, statement)
    except psycopg.Error as error:
        return error.sqlstate or str(error)


class Observed:
    """What a statement does as each of `VIEWERS`, and as the owner on the rows that the viewer must see."""

    def __init__(self, owner: Connection, connection_of: Callable[[Viewer], Connection]) -> None:
        self.owner, self.connection_of = owner, connection_of
        self._others = rows_of_others(owner)

    def outcome(self, viewer: Viewer, statement: sql.Composed) -> list[str] | str:
        """Return what a login gets, after checking that the rows of others did not change; undo everything."""
        connection = self.connection_of(viewer)
        with connection.transaction(force_rollback=True):
            set_client(connection, viewer.setting)
            found = attempt(connection, statement)
            assert rows_of_others(connection) == self._others
            return found

    def visible(self, viewer: Viewer, statement: sql.Composed) -> list[str] | str:
        """Return what the owner gets from the rows that a login must see; undo everything."""
        with self.owner.transaction(force_rollback=True):
            self.owner.execute("SELECT set_config('search_path', %s, true)", [f"{viewer.sees}, public"])
            return attempt(self.owner, statement)


def set_client(connection: Connection, client: str) -> None:
    connection.execute("SELECT set_config('syntegra.client_id', %s, true)", [client])
