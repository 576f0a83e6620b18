"""The revisions as files for psql: what stands in migrations/ is current, and safe to feed to plain psql."""

from __future__ import annotations

import re
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING

import psql
import pytest
from commands import PROGRAMS, ROOT
from dumping import dump

from syntegra_db import migrations
from syntegra_db.migrations._lock import migration_lock
from syntegra_db.migrations._sql_scripts import SqlScript, render_sql_scripts, rollback_script, upgrade_script
from syntegra_db.revisions import VERSION_TABLE, script_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers import Database

    Feed = Callable[[Database, str], subprocess.CompletedProcess[str]]

REVISIONS = list(reversed(list(script_directory().walk_revisions())))
SCRIPTS = [script for revision in REVISIONS for script in (upgrade_script(revision), rollback_script(revision))]
PSQL_STOPPED_ON_AN_ERROR = 3
# What dropping tables is to a rollback.
PURPOSE_OF_A_ROLLBACK = {"ban-drop-table", "ban-drop-type"}

each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    def feed_to(database: Database, script: str) -> subprocess.CompletedProcess[str]:
        return psql.feed(database.url, script, tmp_path)

    return feed_to


def test_files_are_current() -> None:
    files = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "migrations").iterdir()}
    assert files == {script.name: script.text for script in render_sql_scripts()}, "run `make sql`"


def test_files_go_up_and_down(empty_database: Database, feed: Feed) -> None:
    for revision in REVISIONS:
        result = feed(empty_database, upgrade_script(revision).text)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == f"Revision {revision.revision} applied.\n"
        assert stamps(empty_database) == [revision.revision]
    for revision in reversed(REVISIONS):
        result = feed(empty_database, rollback_script(revision).text)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == f"Revision {revision.revision} taken back.\n"
        assert stamps(empty_database) == ([revision.down_revision] if revision.down_revision else [])
    assert objects(empty_database) == {VERSION_TABLE, "alembic_version_pkc", "pg_extension vector"}


def test_files_make_what_the_revisions_make(database: Database, empty_database: Database, feed: Feed) -> None:
    for revision in REVISIONS:
        feed(empty_database, upgrade_script(revision).text)
    assert dump(empty_database, "--schema-only") == dump(database, "--schema-only")


@each_script
def test_an_error_in_the_middle_leaves_nothing(script: SqlScript, empty_database: Database, feed: Feed) -> None:
    prepare(empty_database, script)
    before = objects(empty_database), stamps(empty_database)
    statements = script.text.split(";\n\n")
    statements.insert(len(statements) // 2 + 1, "SELECT 1 / 0")
    result = feed(empty_database, ";\n\n".join(statements))
    assert result.returncode == PSQL_STOPPED_ON_AN_ERROR
    assert "division by zero" in result.stderr
    assert (objects(empty_database), stamps(empty_database)) == before
    assert feed(empty_database, script.text).returncode == 0


@each_script
def test_a_file_that_was_cut_off_leaves_nothing(script: SqlScript, empty_database: Database, feed: Feed) -> None:
    prepare(empty_database, script)
    before = objects(empty_database), stamps(empty_database)
    result = feed(empty_database, script.text.partition("COMMIT;")[0])
    assert "applied" not in result.stdout
    assert "taken back" not in result.stdout
    assert (objects(empty_database), stamps(empty_database)) == before


@pytest.mark.parametrize(
    ("revision", "file", "sentence"),
    [
        (
            "base",
            "002_create_processed_data.sql",
            "revision 002 goes on top of revision 001, but the database is at no",
        ),
        ("base", "003_create_analytics_tables.sql", "revision 003 goes on top of revision 002, but the database is at"),
        ("001", "003_create_analytics_tables.sql", "goes on top of revision 002, but the database is at revision 001"),
        ("001", "001_create_data_sources.sql", "revision 001 is applied already: the database is at revision 001"),
        ("003", "002_create_processed_data.sql", "revision 002 is applied already: the database is at revision 003"),
        ("003", "003_create_analytics_tables.sql", "revision 003 is applied already: the database is at revision 003"),
        ("base", "001_rollback_data_sources.sql", "takes back revision 001, but the database is at no revision"),
        ("002", "003_rollback_analytics_tables.sql", "takes back revision 003, but the database is at revision 002"),
        ("003", "002_rollback_processed_data.sql", "takes back revision 002, but the database is at revision 003"),
    ],
)
def test_refuses_what_does_not_fit(
    revision: str, file: str, sentence: str, empty_database: Database, feed: Feed
) -> None:
    if revision != "base":
        migrations.upgrade(revision, empty_database.url)
    before = objects(empty_database), stamps(empty_database)
    [script] = [script for script in SCRIPTS if script.name == file]
    result = feed(empty_database, script.text)
    assert result.returncode == PSQL_STOPPED_ON_AN_ERROR
    assert sentence in result.stderr
    assert (objects(empty_database), stamps(empty_database)) == before


def test_waits_for_no_other_migration(empty_database: Database, feed: Feed) -> None:
    with empty_database.engine.connect() as connection, migration_lock(connection, timeout=0):
        result = feed(empty_database, SCRIPTS[0].text)
    assert result.returncode == PSQL_STOPPED_ON_AN_ERROR
    assert "another migration is running" in result.stderr
    assert not objects(empty_database)


def test_steps_aside_when_a_table_is_locked(empty_database: Database, feed: Feed) -> None:
    migrations.upgrade("002", empty_database.url)
    with empty_database.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE data_sources IN ROW EXCLUSIVE MODE")
        began = time.monotonic()
        result = feed(empty_database, upgrade_script(REVISIONS[2]).text)
        waited = time.monotonic() - began
    assert result.returncode == PSQL_STOPPED_ON_AN_ERROR
    assert "lock timeout" in result.stderr
    assert waited < 5
    assert stamps(empty_database) == ["002"]


def test_another_schema_than_public(empty_database: Database, tmp_path: Path) -> None:
    empty_database.execute('CREATE SCHEMA "Tenant 1"')
    feed = partial(psql.feed, empty_database.url, home=tmp_path, search_path='"Tenant\\ 1",public')
    before = objects(empty_database)
    for revision in REVISIONS:
        assert feed(upgrade_script(revision).text).stderr == ""
    # The extension goes to the first schema of the path, as CREATE EXTENSION has it.
    assert objects(empty_database) == before | {"pg_extension vector"}
    assert stamps(empty_database, '"Tenant 1"') == ["003"]
    for revision in reversed(REVISIONS):
        assert feed(rollback_script(revision).text).stderr == ""
    assert objects(empty_database) == before | {"pg_extension vector"}


@each_script
def test_squawk(script: SqlScript, tmp_path: Path) -> None:
    """See .squawk.toml; psql's own commands are none of its grammar."""
    file = tmp_path / script.name
    file.write_text(re.sub(r"^\\.*$", "", script.text, flags=re.MULTILINE), encoding="utf-8")
    command = [str(PROGRAMS / "squawk"), "--config", str(ROOT / ".squawk.toml"), "--reporter", "gcc", str(file)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    allowed = PURPOSE_OF_A_ROLLBACK if "_rollback_" in script.name else set()
    violations = found.stdout.splitlines()
    assert [line for line in violations if not allowed & set(line.split())] == []
    assert found.stderr == ""
    assert bool(found.returncode) == bool(violations)


def prepare(database: Database, script: SqlScript) -> None:
    """Take the database to where `script` can be applied."""
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
    """The names of everything in schema public, what belongs to an extension aside, and of the extensions."""
    rows = database.query("""
        SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION SELECT typname::text FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype = 'e'
        UNION SELECT 'pg_extension ' || extname FROM pg_extension WHERE extname <> 'plpgsql'
    """)
    return {row[0] for row in rows}
