"""Whether the clients are separated: group roles, their logins, bound logins, protected tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from syntegra_db.catalog import declared_sequences, require_usable_revision
from syntegra_db.client_policies import SHARED_TABLES, read_tenancy
from syntegra_db.connections import connect
from syntegra_db.group_roles import find_logins, find_unsafe_logins
from syntegra_db.revisions import current_revision
from syntegra_db.search_path import read_session
from syntegra_db.tenancy._bindings import Binding, may_read_bindings, read_bindings
from syntegra_db.tenancy._state import managed_tables_of, unprotected_tables

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


@dataclass(frozen=True)
class TenancyStatus:
    """What is enabled in a schema.

    `logins` are the members of each group role. `unsafe_logins` are those that the policies do not bind, with the
    reason. `bindings` is None if this role may not read them. `unprotected_tables` have rows of clients and no policy;
    `tables_without_client` are those that no service may read, because they have no client and are not declared as
    shared.
    """

    schema: str
    is_enabled: bool
    prefix: str | None
    logins: dict[str, list[str]]
    unsafe_logins: dict[str, str]
    bindings: list[Binding] | None
    unprotected_tables: list[str]
    tables_without_client: list[str]


def read_tenancy_status(bind: Engine | Connection) -> TenancyStatus:
    """Return whether the clients are separated in the current schema, and who sees what.

    Raises:
        TenancyError, UntrustedObject: see `read_tenancy`.
        TablesInOtherSchema, RevisionError, DatabaseAhead: see `require_usable_revision`.
        ConnectionFailed: no connection could be opened; one of its subclasses says why.
    """
    from sqlalchemy import Connection

    if isinstance(bind, Connection):
        return _read(bind)
    with connect(bind) as connection:
        return _read(connection)


def _read(connection: Connection) -> TenancyStatus:
    revision = current_revision(connection)
    require_usable_revision(connection, revision)
    schema, tenancy = read_session(connection).schema or "", read_tenancy(connection)
    tables = managed_tables_of(connection, schema, declared_sequences([revision]))
    unprotected = unprotected_tables(tables)
    without_client = [table.name for table in tables if not table.has_client and table.name not in SHARED_TABLES]
    if tenancy is None:
        return TenancyStatus(schema, False, None, {}, {}, [], unprotected, without_client)
    roles = tenancy.roles
    unsafe = find_unsafe_logins(connection, roles, schema, [table.name for table in tables])
    return TenancyStatus(
        schema=schema,
        is_enabled=True,
        prefix=tenancy.prefix,
        logins=find_logins(connection, roles),
        unsafe_logins={login.name: login.reason for login in unsafe},
        bindings=read_bindings(connection, tenancy) if may_read_bindings(connection, tenancy) else None,
        unprotected_tables=unprotected,
        tables_without_client=without_client,
    )
