"""The privileges that SECURITY.md lists, and how a role gets each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from support.sample_rows import TABLES

if TYPE_CHECKING:
    from typing import LiteralString

    from support.servers import Database

ROLE = "syntegra_test_privileges"
TYPES = ("trend_status", "anomaly_severity")
SEQUENCES = tuple(f"{table}_id_seq" for table in TABLES)
GRANTS: dict[str, tuple[LiteralString, tuple[str, ...]]] = {
    "CONNECT": ("GRANT CONNECT ON DATABASE {} TO {}", ()),
    "TEMPORARY": ("GRANT TEMPORARY ON DATABASE {} TO {}", ()),
    "USAGE of the schema": ("GRANT USAGE ON SCHEMA {} TO {}", ("public",)),
    "CREATE in the schema": ("GRANT CREATE ON SCHEMA {} TO {}", ("public",)),
    "SELECT of `alembic_version`": ("GRANT SELECT ON {} TO {}", ("alembic_version",)),
    "SELECT of the tables": ("GRANT SELECT ON {} TO {}", TABLES),
    "SELECT of the sequences": ("GRANT SELECT ON SEQUENCE {} TO {}", SEQUENCES),
    "SELECT of the table": ("GRANT SELECT ON {} TO {}", ("text_summary",)),
    "INSERT of the table": ("GRANT INSERT ON {} TO {}", ("text_summary",)),
    "UPDATE of the table": ("GRANT UPDATE ON {} TO {}", ("text_summary",)),
    "USAGE of its sequence": ("GRANT USAGE ON SEQUENCE {} TO {}", ("text_summary_id_seq",)),
    "owner of the tables": ("ALTER TABLE {} OWNER TO {}", TABLES),
    "owner of the ENUM types": ("ALTER TYPE {} OWNER TO {}", TYPES),
    "owner of `alembic_version`": ("ALTER TABLE {} OWNER TO {}", ("alembic_version",)),
    "owner of the partitioned table": ("ALTER TABLE {} OWNER TO {}", ("kpi_summary",)),
    "owner of its default partition": ("ALTER TABLE {} OWNER TO {}", ("kpi_summary_default",)),
    "owner of `text_summary`": ("ALTER TABLE {} OWNER TO {}", ("text_summary",)),
}
READ = ("CONNECT", "USAGE of the schema", "SELECT of `alembic_version`")
# Commands that need a revision with a partitioned table.
PARTITION_COMMANDS = {
    "partitions list": READ,
    "partitions create": (
        *READ,
        "CREATE in the schema",
        "owner of the partitioned table",
        "owner of its default partition",
    ),
}


def revoke_defaults(database: Database) -> None:
    """Take from every role what PostgreSQL gives to all of them."""
    database.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    database.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database.name)))


def grant(database: Database, privilege: str) -> sql.Composed:
    """Return the statements that give `privilege` to the role."""
    statement, names = GRANTS[privilege]
    role = sql.Identifier(ROLE)
    return sql.SQL("; ").join(
        sql.SQL(statement).format(sql.Identifier(name), role) for name in names or (database.name,)
    )
