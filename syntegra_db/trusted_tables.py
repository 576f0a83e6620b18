"""Require that writing the tables with the revision and its steps runs no code of another role.

A role that may create objects in the schema can create these tables before the first migration. A superuser and the
migrating role itself are trusted, as for functions in `search_path`. The owner of the schema or of the database is not:
it can replace a table, but not run code as another role. A table of any other role must have exactly the declared
columns and primary key, and nothing that could run: no trigger, rule, policy, default, CHECK, child or other index.

A table of a trusted role may have triggers, such as those of an audit, whose functions belong to trusted roles too. The
catalog does not say who created a trigger, so its condition may call only immutable functions of PostgreSQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.errors import UntrustedObject
from syntegra_db.revisions import VERSION_TABLE
from syntegra_db.search_path import read_session
from syntegra_db.sql import catalog_query, execute_raw, literal, qualify, quote

if TYPE_CHECKING:
    from sqlalchemy import Connection

VERSION_COLUMNS = "version_num character varying(32) NOT NULL"
# What a table of another role has that could run code, or NULL; the SQL files execute it too. With the privilege
# TRIGGER or REFERENCES, another role can add a trigger or a foreign key to a table of a trusted role. The condition of
# a trigger can call any function, also one of PostgreSQL that executes its argument; the immutable ones do not. A
# foreign key writes to its table, whose triggers then run. PostgreSQL's own objects have an oid below 12000.
UNTRUSTED_PART = """
    SELECT relname, CASE
      WHEN EXISTS (
        SELECT FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid JOIN pg_roles AS creator ON creator.oid = proowner
        WHERE tgrelid = tables.oid AND NOT creator.rolsuper AND creator.rolname <> current_user
      ) THEN 'a trigger of another role'
      WHEN EXISTS (
        SELECT FROM pg_trigger CROSS JOIN regexp_matches(tgqual::text, '[{{]([A-Z]+)', 'g') AS node
        WHERE tgrelid = tables.oid AND node[1] <> ALL (ARRAY[{nodes}])
        UNION ALL
        SELECT FROM pg_trigger CROSS JOIN regexp_matches(tgqual::text, ' :(op)?funcid ([0-9]+)', 'g') AS called
          LEFT JOIN pg_proc ON pg_proc.oid = called[2]::oid
        WHERE tgrelid = tables.oid AND (pg_proc.oid < 12000 AND provolatile = 'i') IS NOT TRUE
      ) THEN 'a trigger with a condition that calls more than immutable functions of PostgreSQL (its function can '
        'check the condition instead)'
      WHEN EXISTS (
        SELECT FROM pg_constraint JOIN pg_class AS follower ON follower.oid = conrelid
          JOIN pg_roles AS creator ON creator.oid = follower.relowner
        WHERE confrelid = tables.oid AND NOT creator.rolsuper AND creator.rolname <> current_user
      ) THEN 'a foreign key of another role'
      WHEN owner.rolsuper OR owner.rolname = current_user THEN NULL
      WHEN relkind <> 'r' OR relpersistence <> 'p' OR reloftype <> 0 THEN 'another kind'
      WHEN EXISTS (SELECT FROM pg_trigger WHERE tgrelid = tables.oid) THEN 'a trigger'
      WHEN EXISTS (SELECT FROM pg_rewrite WHERE ev_class = tables.oid) THEN 'a rule'
      WHEN relrowsecurity OR relforcerowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = tables.oid)
        THEN 'row-level security'
      WHEN EXISTS (SELECT FROM pg_inherits WHERE inhparent = tables.oid OR inhrelid = tables.oid)
        THEN 'a parent or child table'
      WHEN EXISTS (SELECT FROM pg_attrdef WHERE adrelid = tables.oid) THEN 'a default or generated column'
      WHEN declared_columns IS DISTINCT FROM (
        SELECT string_agg(concat(attname, ' ', format_type(atttypid, atttypmod),
          CASE WHEN attnotnull THEN ' NOT NULL' END), ', ' ORDER BY attnum)
        FROM pg_attribute WHERE attrelid = tables.oid AND attnum > 0 AND NOT attisdropped
      ) OR EXISTS (
        SELECT FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
        WHERE attrelid = tables.oid AND attnum > 0 AND NOT attisdropped
          AND (typnamespace <> 'pg_catalog'::regnamespace OR attcollation <> typcollation OR attidentity <> '')
      ) THEN 'other columns'
      WHEN EXISTS (SELECT FROM pg_constraint WHERE conrelid = tables.oid AND contype <> 'p' AND contype <> 'n')
        THEN 'another constraint'
      WHEN NOT EXISTS (
        SELECT FROM pg_index WHERE indrelid = tables.oid AND indisprimary AND indnatts = 1 AND indkey[0] = 1
      ) THEN 'no primary key'
      WHEN EXISTS (SELECT FROM pg_index WHERE indrelid = tables.oid AND NOT indisprimary) THEN 'another index'
    END AS part, owner.rolname AS owner
    FROM (VALUES {declared}) AS declared (declared_name, declared_columns)
      JOIN pg_class AS tables ON relname = declared_name
      JOIN pg_namespace ON pg_namespace.oid = relnamespace
      JOIN pg_roles AS owner ON owner.oid = relowner
    WHERE nspname = {schema}
"""
# Nodes of a condition that call only the functions that they name, in the names of PostgreSQL 15 and of later versions.
CONDITION_NODES = (
    *("ARRAY", "ARRAYEXPR", "BOOLEANTEST", "BOOLEXPR", "COLLATE", "COLLATEEXPR", "CONST", "DISTINCTEXPR", "FUNCEXPR"),
    *("NULLTEST", "OPEXPR", "RELABELTYPE", "SCALARARRAYOPEXPR", "VAR"),
)
REMEDY = (
    "Find out who added that, and drop it, or drop or rename the table; or, if you trust it, give the table, the "
    "functions of its triggers and the tables that reference it to the role that migrates."
)


def untrusted_part(declared: str, schema: str) -> str:
    """Return the query for what the table or tables `declared` of `schema` have that could run code of another role."""
    return UNTRUSTED_PART.format(declared=declared, schema=schema, nodes=", ".join(map(literal, CONDITION_NODES)))


FIND_VERSION_TABLE_PART = catalog_query(untrusted_part("(CAST(:name AS pg_catalog.name), :columns)", ":schema"))


def require_trusted_version_table(connection: Connection, *, locked: bool = False) -> None:
    """Raise an error if a write to the version table, if there is one, could run code of another role.

    `locked` keeps others from changing it until the transaction ends: use it in the transaction that writes.

    Raises:
        UntrustedObject: the message says what it has, and what to do.
    """
    session = read_session(connection)
    parameters = {"schema": session.schema, "name": VERSION_TABLE, "columns": VERSION_COLUMNS}
    found = connection.execute(FIND_VERSION_TABLE_PART, parameters).first()
    if found is None:
        return
    table = qualify(session.schema, VERSION_TABLE)
    if found.part is None and locked:
        execute_raw(connection, f"LOCK TABLE ONLY {table} IN SHARE ROW EXCLUSIVE MODE")
        found = connection.execute(FIND_VERSION_TABLE_PART, parameters).one()
    if found.part is not None:
        raise UntrustedObject(
            f"The table {table} of {quote(found.owner)} has {found.part}, which could run code as "
            f"{quote(session.role)}; nothing was written to it. {REMEDY}"
        )
