"""Bind logins to one client each, which no setting of their sessions changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.errors import InsufficientPrivilege
from sqlalchemy.exc import DBAPIError

from syntegra_db.catalog import declared_sequences
from syntegra_db.client_policies import BINDINGS_TABLE
from syntegra_db.errors import TenancyError, server_message
from syntegra_db.group_roles import find_logins
from syntegra_db.revisions import VERSION_TABLE
from syntegra_db.sql import BIGINT, catalog_query, execute_raw, literal, lock_for_reading, qualify, qualify_name, quote
from syntegra_db.tenancy._groups import is_member, require_safe_logins
from syntegra_db.tenancy._state import managed_tables_of, require_own, require_tenancy
from syntegra_db.tenancy._transactions import run_change
from syntegra_db.wording import shell_quote

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from syntegra_db.client_policies import Tenancy
    from syntegra_db.migrations import MigrationOptions

SELECT = "SELECT CAST(login AS pg_catalog.text), client_id FROM ONLY {table} ORDER BY 1"
INSERT = "INSERT INTO {table} (login, client_id) VALUES ({login}, {client})"
DELETE = "DELETE FROM ONLY {table} WHERE login OPERATOR(pg_catalog.=) CAST({login} AS pg_catalog.name)"
MAY_READ = catalog_query("SELECT has_table_privilege(to_regclass(:table), 'SELECT')")
CAN_LOG_IN = catalog_query("SELECT rolcanlogin FROM pg_roles WHERE rolname = :login")


@dataclass(frozen=True)
class Binding:
    """A login and its client; one that `is_attached` is a member of the group role, and others see no row."""

    login: str
    client_id: int
    is_attached: bool


def bind(
    database: Engine | Connection, login: str, client_id: int, *, options: MigrationOptions | None = None
) -> Binding:
    """Let `login` read the rows of one client, whatever its sessions set; it can change nothing.

    Its policies ask for `session_user`, so they work after SET ROLE too. The login is in no other group role.

    Raises:
        TenancyError: there is no such login, it is bound to another client or not safe, or this role may not do it.
        UntrustedObject, LockTimeout, TablesInOtherSchema, RevisionError, CommitUnconfirmed, ConnectionFailed: see
            `enable`.
    """
    if isinstance(client_id, bool) or client_id not in BIGINT:
        raise TenancyError(f"{client_id} is not the number of a client (bigint). Nothing was changed.")

    def change(connection: Connection, revision: str | None, _: MigrationOptions) -> Binding:
        tenancy = _require_own_bindings(connection)
        _require_login(connection, login)
        bound = {binding.login: binding.client_id for binding in read_bindings(connection, tenancy)}
        if bound.get(login, client_id) != client_id:
            raise TenancyError(
                f"Login {quote(login)} is bound to client {bound[login]}; nothing was changed. To bind it to another "
                f"one, run this before: syntegra-db tenancy unbind {shell_quote(login)}"
            )
        if login not in bound:
            table = qualify(tenancy.schema, BINDINGS_TABLE)
            _run(connection, login, INSERT.format(table=table, login=literal(login), client=client_id))
        if not is_member(connection, login, tenancy.roles.bound):
            _run(connection, login, f"GRANT {quote(tenancy.roles.bound)} TO {quote(login)}")
        tables = [*declared_sequences([revision]), VERSION_TABLE]
        require_safe_logins(connection, tenancy.roles, tenancy.schema, tables, login)
        return Binding(login, client_id, is_attached=True)

    return run_change(database, change, options)


def unbind(database: Engine | Connection, login: str, *, options: MigrationOptions | None = None) -> None:
    """Take the client from a login that `bind` bound: it sees no rows any more.

    A login that was dropped can be given too.

    Raises:
        TenancyError: the login is not bound, or this role may not do it.
        UntrustedObject, LockTimeout, TablesInOtherSchema, RevisionError, CommitUnconfirmed, ConnectionFailed: see
            `enable`.
    """

    def change(connection: Connection, _revision: str | None, _: MigrationOptions) -> None:
        tenancy = _require_own_bindings(connection)
        is_attached = is_member(connection, login, tenancy.roles.bound)
        is_bound = login in {binding.login for binding in read_bindings(connection, tenancy)}
        if not is_bound and not is_attached:
            raise TenancyError(
                f"Login {quote(login)} is bound to no client; nothing was changed. This command lists the bound ones: "
                "syntegra-db tenancy status"
            )
        _run(connection, login, DELETE.format(table=qualify(tenancy.schema, BINDINGS_TABLE), login=literal(login)))
        if is_attached:
            _run(connection, login, f"REVOKE {quote(tenancy.roles.bound)} FROM {quote(login)}")

    run_change(database, change, options)


def read_bindings(connection: Connection, tenancy: Tenancy) -> list[Binding]:
    """Return the bound logins by name, also those that were dropped.

    The role must be the owner of the table, or a superuser.
    """
    table = qualify(tenancy.schema, BINDINGS_TABLE)
    lock_for_reading(connection, table)
    attached = find_logins(connection, tenancy.roles)[tenancy.roles.bound]
    rows = execute_raw(connection, SELECT.format(table=table)).all()
    return [Binding(row.login, row.client_id, row.login in attached) for row in rows]


def may_read_bindings(connection: Connection, tenancy: Tenancy) -> bool:
    """Return whether this role can use `read_bindings`."""
    return bool(connection.scalar(MAY_READ, {"table": qualify_name(tenancy.schema, BINDINGS_TABLE)}))


def _require_own_bindings(connection: Connection) -> Tenancy:
    """Return the recorded state, whose table of bound logins this role owns."""
    tenancy = require_tenancy(connection)
    require_own(managed_tables_of(connection, tenancy.schema, [BINDINGS_TABLE]))
    return tenancy


def _require_login(connection: Connection, login: str) -> None:
    can_log_in = connection.scalar(CAN_LOG_IN, {"login": login})
    if can_log_in is None:
        raise TenancyError(
            f"There is no role {quote(login)}; nothing was changed. Create it, then set its password with \\password "
            f"in psql: CREATE ROLE {quote(login)} LOGIN;"
        )
    if not can_log_in:
        raise TenancyError(
            f"Role {quote(login)} cannot log in, so its members would share one client; nothing was changed. Name a "
            "login."
        )


def _run(connection: Connection, login: str, statement: str) -> None:
    """Run a statement that binds `login` or takes the client from it.

    Raises:
        TenancyError: this role may not.
    """
    try:
        execute_raw(connection, statement)
    except DBAPIError as error:
        if not isinstance(error.orig, InsufficientPrivilege):
            raise
        raise TenancyError(
            f"This role may not bind {quote(login)}: {server_message(error)}. Nothing was changed. Run this as the "
            "role that ran `syntegra-db tenancy enable`, or as an administrator."
        ) from None
