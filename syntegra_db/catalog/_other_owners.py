"""Who owns the tables of the package, for the message to a role that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog._manifest import managed_tables
from syntegra_db.revisions import VERSION_TABLE
from syntegra_db.search_path import read_session
from syntegra_db.sql import catalog_query, quote

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Partitions are left out: their names are of no release, and `ALTER TABLE … OWNER TO` leaves them.
FIND_OWNERS = catalog_query("""
    SELECT relname::text AS name, pg_get_userbyid(relowner)::text AS owner, pg_has_role(relowner, 'USAGE') AS is_own
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = :schema AND relname = ANY (:tables) AND relkind IN ('r', 'p') AND NOT relispartition
    ORDER BY relname
""")


def who_may_change_tables(connection: Connection) -> str | None:
    """Return the sentence that names who may change the tables in the current schema; None if this role may.

    A member of the owner may.
    """
    parameters = {"schema": read_session(connection).schema, "tables": [*managed_tables(), VERSION_TABLE]}
    found = connection.execute(FIND_OWNERS, parameters).all()
    others = [table for table in found if not table.is_own]
    if not others:
        return None
    owners = list(dict.fromkeys(quote(table.owner) for table in others))
    names = "the tables" if len(others) == len(found) else ", ".join(quote(table.name) for table in others)
    if len(owners) == 1:
        return f"Run this as {owners[0]}, who owns {names}, or as an administrator."
    return f"Run this as a member of {' and '.join(owners)}, who own {names}, or as an administrator."
