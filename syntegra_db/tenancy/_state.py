"""The recorded state of a schema, and its installed tables with their policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog import managed_tables
from syntegra_db.client_policies import POLICIES, Tenancy, read_tenancy
from syntegra_db.client_setting import CLIENT_COLUMN
from syntegra_db.connections import connect
from syntegra_db.errors import TenancyError
from syntegra_db.revisions import VERSION_TABLE
from syntegra_db.search_path import read_session
from syntegra_db.sql import catalog_query, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from sqlalchemy import Connection, Engine, Row

FIND_TABLES = catalog_query("""
    SELECT relname::text AS name, pg_get_userbyid(relowner)::text AS owner, pg_has_role(relowner, 'USAGE') AS is_own,
           relrowsecurity AS has_row_security, relforcerowsecurity AS is_forced,
           EXISTS (
             SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = :client_column AND NOT attisdropped
           ) AS has_client,
           ARRAY(SELECT polname::text FROM pg_policy WHERE polrelid = pg_class.oid ORDER BY polname) AS policies
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = :schema AND relname = ANY (:tables) AND relkind IN ('r', 'p')
    ORDER BY relname
""")


def require_tenancy(connection: Connection) -> Tenancy:
    """Return the recorded state of the current schema.

    Raises:
        TenancyError: it is not enabled.
        UntrustedObject: see `read_tenancy`.
    """
    tenancy = read_tenancy(connection, to_change=True)
    if tenancy is None:
        raise TenancyError(
            f"The clients are not separated in schema {quote(read_session(connection).schema or '')}; nothing was "
            "changed. To separate them, run: syntegra-db tenancy enable"
        )
    return tenancy


def managed_tables_of(connection: Connection, schema: str | None, names: Iterable[str]) -> Sequence[Row[Any]]:
    """Return the installed ones of the tables `names`, with their owners and policies."""
    parameters = {"schema": schema, "tables": list(names), "client_column": CLIENT_COLUMN}
    return connection.execute(FIND_TABLES, parameters).all()


def require_ownership(engine: Engine) -> None:
    """Raise an error unless this role may change the tables in the current schema, as `enable` and `disable` do.

    Raises:
        TenancyError: other roles own them.
        ConnectionFailed: no connection could be opened; one of its subclasses says why.
    """
    with connect(engine) as connection:
        schema = read_session(connection).schema
        require_own(managed_tables_of(connection, schema, [*managed_tables(), VERSION_TABLE]))


def require_own(tables: Iterable[Row[Any]]) -> None:
    """Raise an error unless this role owns each of `managed_tables_of`, or is a member of its owner.

    Raises:
        TenancyError: it does not; the message names the owners.
    """
    others = {table.name: table.owner for table in tables if not table.is_own}
    if others:
        owners = ", ".join(map(quote, dict.fromkeys(others.values())))
        verb = "belongs" if len(others) == 1 else "belong"
        raise TenancyError(
            f"{', '.join(map(quote, others))} {verb} to {owners}; nothing was changed. Run this as the owner of the "
            "tables or as an administrator."
        )


def unprotected_tables(tables: Iterable[Row[Any]]) -> list[str]:
    """Return the names of those of `managed_tables_of` that have rows of clients, and not all policies in force."""
    names = {policy.name for policy in POLICIES}
    return [
        table.name
        for table in tables
        if table.has_client and not (table.has_row_security and names <= {*table.policies})
    ]
