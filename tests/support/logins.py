"""Logins of the group roles, each a role that can log in, as services have them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql
from sqlalchemy import func, select

from syntegra_db.client_policies import GroupRoles, group_roles
from syntegra_db.client_setting import SETTING
from syntegra_db.connections import conninfo

if TYPE_CHECKING:
    from contextlib import ExitStack

    from sqlalchemy.orm import Session

    from support.servers import Database, Server

ROLES = group_roles("syntegra_")
NUMBERS = itertools.count(1)


def drop_group_roles(server: Server, prefix: str) -> None:
    """Drop the group roles with `prefix`, on which no database depends any more."""
    for role in group_roles(prefix):
        server.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


class Logins:
    """Create logins that are dropped with `stack`."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self._server, self._stack = server, stack

    def create(self, *groups: str) -> str:
        """Create a login that is a member of `groups`, and return its name."""
        name = self._stack.enter_context(self._server.role(f"syntegra_test_login_{next(NUMBERS)}"))
        for group in groups:
            self._server.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(name)))
        return name

    def of(self, roles: GroupRoles) -> GroupRoles:
        """Create a login of each group role, and return their names in the same order."""
        return GroupRoles(*map(self.create, roles))


def rows_as(
    database: Database, login: str, query: LiteralString | sql.Composed, client: int | None = None
) -> list[tuple[Any, ...]]:
    """Return the rows of a statement that `login` runs in a session for `client`; of one without rows, none."""
    with psycopg.connect(conninfo(database.url_as(login)), autocommit=True) as connection:
        if client is not None:
            connection.execute("SELECT set_config('syntegra.client_id', %s, false)", [str(client)])
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else []


def clients_seen(database: Database, login: str, table: str, client: int | None = None) -> set[int]:
    """Return the clients whose rows `login` sees in `table`."""
    query = sql.SQL("SELECT DISTINCT client_id FROM {}").format(sql.Identifier(table))
    return {row[0] for row in rows_as(database, login, query, client)}


def set_client(session: Session, client: int | None) -> None:
    """Set the client of a session until its transaction ends."""
    session.execute(select(func.set_config(SETTING, "" if client is None else str(client), True)))
