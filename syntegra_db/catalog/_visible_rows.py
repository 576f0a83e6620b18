"""Require that this role sees every row of the tables, for commands that save, count or sample all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.search_path import read_session
from syntegra_db.sql import catalog_query, qualify, quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from syntegra_db.errors import SyntegraDBError

HIDING_TABLES = catalog_query("""
    SELECT relname::text AS name, pg_get_userbyid(relowner)::text AS owner,
           relforcerowsecurity AND pg_has_role(relowner, 'USAGE') AS is_forced
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = :schema AND relname = ANY (:tables) AND relkind IN ('r', 'p') AND row_security_active(pg_class.oid)
    ORDER BY relname
""")


def require_all_rows(connection: Connection, tables: Iterable[str], error: type[SyntegraDBError]) -> None:
    """Raise `error` if row-level security can hide rows of `tables` in the current schema from this role.

    Raises:
        error: the message says who can run the command, or how the owner stops hiding its rows from itself.
    """
    session = read_session(connection)
    found = connection.execute(HIDING_TABLES, {"schema": session.schema, "tables": list(tables)}).all()
    if not found:
        return
    names = ", ".join(quote(row.name) for row in found)
    if forced := [row.name for row in found if row.is_forced]:
        statements = " ".join(
            f"ALTER TABLE {qualify(session.schema, name)} NO FORCE ROW LEVEL SECURITY;" for name in forced
        )
        raise error(
            f"FORCE ROW LEVEL SECURITY hides rows of {names} from their owner, and this needs all of them; nothing was "
            f"changed. Run: {statements}"
        )
    owners = " and ".join(quote(owner) for owner in dict.fromkeys(row.owner for row in found))
    raise error(
        f"Row-level security can hide rows of {names} from role {quote(session.role)}, and this needs all of them; "
        f"nothing was changed. Run it as the owner of the tables, {owners}, or as an administrator."
    )
