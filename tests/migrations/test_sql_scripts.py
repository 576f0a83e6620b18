"""The revisions as SQL files: what plain psql does with them."""

from __future__ import annotations

import re
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from support import psql
from support.pg_dump import dump
from support.revisions import HEAD
from syntegra_db import migrations
from syntegra_db.migrations._lock import migration_lock
from syntegra_db.migrations._sql_scripts import SqlScript, rollback_script, upgrade_script
from syntegra_db.revisions import VERSION_TABLE, script_directory
from syntegra_db.sql import quote

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from support.servers import Database

    Feed = Callable[[Database, str], subprocess.CompletedProcess[str]]

REVISIONS = list(reversed(list(script_directory().walk_revisions())))
SCRIPTS = [script for revision in REVISIONS for script in (upgrade_script(revision), rollback_script(revision))]
EXIT_PSQL_ERROR = 3
# A rollback drops tables and types on purpose.

each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    def feed_to(database: Database, script: str) -> subprocess.CompletedProcess[str]:
        return psql.feed(database.url, script, tmp_path)

    return feed_to


def test_scripts_upgrade_and_revert_every_revision(empty_database: Database, feed: Feed) -> None:
    for revision in REVISIONS:
        result = feed(empty_database, upgrade_script(revision).text)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == f"Revision {revision.revision} applied.\n"
        assert stamps(empty_database) == [revision.revision]
    for revision in reversed(REVISIONS):
        result = feed(empty_database, rollback_script(revision).text)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == f"Revision {revision.revision} reverted.\n"
        assert stamps(empty_database) == ([revision.down_revision] if revision.down_revision else [])
    assert objects(empty_database) == {VERSION_TABLE, "alembic_version_pkc", "pg_extension vector"}


def test_scripts_create_the_same_schema_as_alembic(database: Database, empty_database: Database, feed: Feed) -> None:
    for revision in REVISIONS:
        feed(empty_database, upgrade_script(revision).text)
    assert dump(empty_database, "--schema-only") == dump(database, "--schema-only")


@each_script
def test_script_with_an_error_changes_nothing(script: SqlScript, empty_database: Database, feed: Feed) -> None:
    prepare(empty_database, script)
    before = objects(empty_database), stamps(empty_database)
    statements = script.text.split(";\n\n")
    statements.insert(len(statements) // 2 + 1, "SELECT 1 / 0")
    result = feed(empty_database, ";\n\n".join(statements))
    assert result.returncode == EXIT_PSQL_ERROR
    assert "division by zero" in result.stderr
    assert (objects(empty_database), stamps(empty_database)) == before
    assert feed(empty_database, script.text).returncode == 0


@each_script
def test_truncated_script_changes_nothing(script: SqlScript, empty_database: Database, feed: Feed) -> None:
    prepare(empty_database, script)
    before = objects(empty_database), stamps(empty_database)
    result = feed(empty_database, script.text.partition("COMMIT;")[0])
    assert "applied" not in result.stdout
    assert "reverted" not in result.stdout
    assert (objects(empty_database), stamps(empty_database)) == before


@pytest.mark.parametrize(
    ("revision", "file", "message"),
    [
        (
            "base",
            "002_create_processed_data.sql",
            "revision 002 upgrades from revision 001, but the database is at no",
        ),
        ("base", "003_create_analytics_tables.sql", "revision 003 upgrades from revision 002, but the database is at"),
        ("001", "003_create_analytics_tables.sql", "upgrades from revision 002, but the database is at revision 001"),
        ("001", "001_create_data_sources.sql", "revision 001 is already applied: the database is at revision 001"),
        (HEAD, "002_create_processed_data.sql", f"revision 002 is already applied: the database is at revision {HEAD}"),
        ("003", "003_create_analytics_tables.sql", "revision 003 is already applied: the database is at revision 003"),
        ("base", "001_rollback_data_sources.sql", "reverts revision 001, but the database is at no revision"),
        ("002", "003_rollback_analytics_tables.sql", "reverts revision 003, but the database is at revision 002"),
        (HEAD, "002_rollback_processed_data.sql", f"reverts revision 002, but the database is at revision {HEAD}"),
    ],
)
def test_script_on_wrong_revision_is_rejected(
    revision: str, file: str, message: str, empty_database: Database, feed: Feed
) -> None:
    if revision != "base":
        migrations.upgrade(revision, empty_database.url)
    before = objects(empty_database), stamps(empty_database)
    [script] = [script for script in SCRIPTS if script.name == file]
    result = feed(empty_database, script.text)
    assert result.returncode == EXIT_PSQL_ERROR
    assert message in result.stderr
    assert (objects(empty_database), stamps(empty_database)) == before


def test_script_during_another_migration_is_rejected(empty_database: Database, feed: Feed) -> None:
    with empty_database.engine.connect() as connection, migration_lock(connection, timeout=0):
        result = feed(empty_database, SCRIPTS[0].text)
    assert result.returncode == EXIT_PSQL_ERROR
    assert "another migration is running" in result.stderr
    assert not objects(empty_database)


def test_script_with_locked_table_fails_on_lock_timeout(empty_database: Database, feed: Feed) -> None:
    migrations.upgrade("002", empty_database.url)
    with empty_database.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE data_sources IN ROW EXCLUSIVE MODE")
        started = time.monotonic()
        result = feed(empty_database, upgrade_script(REVISIONS[2]).text)
        elapsed = time.monotonic() - started
    assert result.returncode == EXIT_PSQL_ERROR
    assert "lock timeout" in result.stderr
    assert elapsed < 5
    assert stamps(empty_database) == ["002"]


def test_scripts_in_schema_other_than_public(empty_database: Database, tmp_path: Path) -> None:
    empty_database.execute('CREATE SCHEMA "Tenant 1"')
    feed = partial(psql.feed, empty_database.url, home=tmp_path, search_path='"Tenant\\ 1",public')
    before = objects(empty_database)
    for revision in REVISIONS:
        assert feed(upgrade_script(revision).text).stderr == ""
    # CREATE EXTENSION installs into the first schema of the search path.
    assert objects(empty_database) == before | {"pg_extension vector"}
    assert stamps(empty_database, '"Tenant 1"') == [HEAD]
    for revision in reversed(REVISIONS):
        assert feed(rollback_script(revision).text).stderr == ""
    assert objects(empty_database) == before | {"pg_extension vector"}


@pytest.mark.parametrize("owner", ["public", 'old "tables"'])
@pytest.mark.parametrize("revision", [1, 2, 3])
def test_script_in_new_schema_before_the_tables_is_rejected_with_hint_that_works(
    empty_database: Database, tmp_path: Path, owner: str, revision: int
) -> None:
    empty_database.execute(
        sql.SQL("CREATE SCHEMA IF NOT EXISTS {}; CREATE SCHEMA {}").format(*map(sql.Identifier, (owner, "New one")))
    )
    feed = partial(psql.feed, empty_database.url, home=tmp_path)
    texts = [upgrade_script(script).text for script in REVISIONS]
    path = f"{quote(owner)},public".replace(" ", "\\ ")
    for text in texts[: revision - 1] or texts[:1]:
        assert feed(text, search_path=path).stderr == ""
    path = '"New\\ one",' + path
    result = feed(texts[revision - 1], search_path=path)
    assert result.returncode == EXIT_PSQL_ERROR
    assert f'in schema {quote(owner)}, but the search_path leads to schema "New one"' in result.stderr
    use, second = re.findall(r"SET [a-z_.]+ = .*?;", result.stderr)
    assert stamps(empty_database, '"New one"') == []
    used = feed(f"{use}\n{texts[revision - 1]}", search_path=path)
    assert (used.returncode, "is already applied" in used.stderr) in ((0, False), (EXIT_PSQL_ERROR, revision == 1))
    for text in texts:
        assert feed(f"{second}\n{text}", search_path=path).stderr == ""
    assert stamps(empty_database, '"New one"') == [HEAD]


def prepare(database: Database, script: SqlScript) -> None:
    """Migrate the database to the revision that `script` starts from."""
    number = script.name.partition("_")[0]
    before = script_directory().get_revision(number).down_revision
    revision = number if "_rollback_" in script.name else before
    if isinstance(revision, str):
        migrations.upgrade(revision, database.url)


def stamps(database: Database, schema: str = "public") -> list[str]:
    with database.connect() as connection:
        if connection.execute("SELECT to_regclass(%s)", (f"{schema}.{VERSION_TABLE}",)).fetchone() == (None,):
            return []
        rows = connection.execute(f"SELECT version_num FROM {schema}.{VERSION_TABLE}").fetchall()
    return [row[0] for row in rows]


def objects(database: Database) -> set[str]:
    """The names of the relations and ENUM types in schema public, and of the extensions."""
    rows = database.query("""
        SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION SELECT typname::text FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype = 'e'
        UNION SELECT 'pg_extension ' || extname FROM pg_extension WHERE extname <> 'plpgsql'
    """)
    return {row[0] for row in rows}
