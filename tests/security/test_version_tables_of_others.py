"""Another role may create tables with the names of the package's own. The SQL files run none of its code."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg import sql

from support import psql
from support.commands import ROOT
from syntegra_db.connections import conninfo

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Server

# A name that only a quoted identifier has.
OPERATOR = "Syntegra operator"
STRANGER = "syntegra_mallory"
FILES = ("001_create_data_sources.sql", "001_rollback_data_sources.sql")
# A call advances a sequence, which a rollback does not undo.
PREPARE = """
    CREATE SCHEMA foreign_code;
    GRANT USAGE ON SCHEMA foreign_code TO PUBLIC;
    CREATE SEQUENCE foreign_code.calls;
    GRANT USAGE ON foreign_code.calls TO PUBLIC;
    CREATE FUNCTION foreign_code.allow() RETURNS bool LANGUAGE sql
      AS 'SELECT nextval(''foreign_code.calls'') IS NOT NULL';
    CREATE TYPE foreign_code.word AS (value text);
    CREATE FUNCTION foreign_code.read(foreign_code.word) RETURNS text LANGUAGE sql
      AS 'SELECT nextval(''foreign_code.calls'')::text';
    CREATE CAST (foreign_code.word AS text) WITH FUNCTION foreign_code.read AS IMPLICIT;
    CREATE DOMAIN foreign_code.long_word AS text CHECK (foreign_code.allow());
"""
STEPS: LiteralString = "CREATE TABLE alembic_version_steps (step int, revision {}, direction {});"
VERSION: LiteralString = "CREATE TABLE alembic_version (version_num {});"
POLICY: LiteralString = (
    "CREATE POLICY p ON {0} USING (foreign_code.allow()); ALTER TABLE {0} ENABLE ROW LEVEL SECURITY;"
)
OWN_VERSION: LiteralString = "CREATE TABLE alembic_version (version_num varchar(32));"
OTHER_COLUMNS = "has other columns than this package creates"
ROW_SECURITY = "has row-level security; ask its owner to run: ALTER TABLE public.{0} DISABLE ROW LEVEL SECURITY;"
TABLES: dict[str, tuple[LiteralString, str]] = {
    "policy of steps": (
        STEPS.format("text", "text") + POLICY.format("alembic_version_steps"),
        "belongs to another role",
    ),
    "policy of steps with version table": (
        OWN_VERSION + STEPS.format("text", "text") + POLICY.format("alembic_version_steps"),
        ROW_SECURITY.format("alembic_version_steps"),
    ),
    "steps": (STEPS.format("text", "text"), "belongs to another role"),
    "cast of a revision": (OWN_VERSION + STEPS.format("foreign_code.word", "text"), OTHER_COLUMNS),
    "cast of a direction": (OWN_VERSION + STEPS.format("text", "foreign_code.word"), OTHER_COLUMNS),
    "domain of a direction": (OWN_VERSION + STEPS.format("text", "foreign_code.long_word"), OTHER_COLUMNS),
    "steps as a view": (
        "CREATE VIEW alembic_version_steps AS SELECT '1' AS revision, '' AS direction WHERE foreign_code.allow();",
        "is not an ordinary table",
    ),
    "policy of the version": (
        VERSION.format("text") + POLICY.format("alembic_version"),
        ROW_SECURITY.format("alembic_version"),
    ),
    "cast of the version": (VERSION.format("foreign_code.word"), OTHER_COLUMNS),
    "no version": ("CREATE TABLE alembic_version (other text);", OTHER_COLUMNS),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("tables", TABLES)
def test_sql_file_with_tables_of_another_role_is_rejected_and_runs_no_code(
    server: Server, tmp_path: Path, tables: str, file: str
) -> None:
    statements, message = TABLES[tables]
    with server.role(STRANGER), server.role(OPERATOR), server.database() as database:
        database.execute(
            sql.SQL("GRANT CREATE ON SCHEMA public TO {0}; GRANT CREATE ON DATABASE {1} TO {0}").format(
                sql.Identifier(STRANGER), sql.Identifier(database.name)
            )
        )
        with psycopg.connect(conninfo(database.url_as(STRANGER)), autocommit=True) as connection:
            connection.execute(PREPARE)
            connection.execute(statements)
            connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC")
            for name in ("alembic_version", "alembic_version_steps"):
                if "VIEW" not in statements and f"TABLE {name} (" in statements:
                    connection.execute(sql.SQL("INSERT INTO {} DEFAULT VALUES").format(sql.Identifier(name)))
            connection.execute("SELECT setval('foreign_code.calls', 1, false)")
        script = (ROOT / "migrations" / file).read_text(encoding="utf-8")
        result = psql.feed(database.url_as(OPERATOR), script, tmp_path)
        assert database.query("SELECT is_called FROM foreign_code.calls") == [(False,)]
        assert message in result.stderr


@pytest.mark.parametrize("owner", ["of the steps", "of the version"])
def test_sql_file_reads_steps_of_a_trusted_role(server: Server, tmp_path: Path, owner: str) -> None:
    script = (ROOT / "migrations" / FILES[0]).read_text(encoding="utf-8")
    with server.role(STRANGER), server.role(OPERATOR), server.database() as database:
        database.execute(OWN_VERSION + STEPS.format("text", "text"))
        database.execute("INSERT INTO alembic_version_steps VALUES (1, '009', 'downgrade')")
        database.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC")
        if owner == "of the steps":
            database.execute(sql.SQL("ALTER TABLE alembic_version_steps OWNER TO {}").format(sql.Identifier(OPERATOR)))
        result = psql.feed(database.url_as(OPERATOR), script, tmp_path)
        assert "the downgrade of revision 009 is unfinished" in result.stderr
        assert "syntegra-db status" in result.stderr
