"""What follows a commit fails: the commands still report what was committed, and what was not verified."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.commands import run
from support.processes import lock_after
from support.revisions import HEAD
from support.sample_rows import load_rows
from support.tcp_proxy import tcp_proxy
from syntegra_db import migrations
from syntegra_db.backup import ExistingRows, RollbackResult, create_backup, restore, rollback
from syntegra_db.connections import unpooled_engine
from syntegra_db.errors import MigrationFailed, SchemaDrift, SchemaNotVerified

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.servers import Database

AUDIT = """
    CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$;
    CREATE TRIGGER audit BEFORE UPDATE ON processed_data FOR EACH ROW EXECUTE FUNCTION audit()
"""
CHANGE_WHEN_TABLES_ARE_DROPPED = """
    CREATE FUNCTION change() RETURNS event_trigger LANGUAGE plpgsql AS
    $$BEGIN ALTER TABLE data_sources ALTER name DROP NOT NULL; END$$;
    CREATE EVENT TRIGGER change ON ddl_command_end WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION change()
"""
REVISION = "SELECT version_num FROM alembic_version"


@pytest.fixture
def filled(database: Database) -> Database:
    load_rows(database, 500)
    return database


def test_restore_with_table_locked_after_commit_reports_rows_as_restored(filled: Database) -> None:
    saved = create_backup(filled.engine).path
    filled.execute("DELETE FROM clusters WHERE id > 5")
    with (
        lock_after(filled, "clusters"),
        pytest.raises(SchemaNotVerified, match=r"^The rows of .* are restored, but .* another session locks a table"),
    ):
        restore(saved, filled.engine, ExistingRows.REPLACE)
    assert filled.query("SELECT count(*) FROM clusters") == [(50,)]


def test_rollback_command_with_table_locked_after_commit_prints_restore_command(filled: Database) -> None:
    with lock_after(filled, "data_sources"):
        result = run("syntegra-db", "rollback", "002", url=filled.environment_url, cwd=Path.cwd())
    assert result.returncode == 30, result.stderr
    (command,) = re.findall(r"To restore the rows:\n  (syntegra-db restore .*)", result.stdout)
    assert "The database is back at revision 002, and the rows are in backups/" in result.stderr.splitlines()[-1]
    assert "Run `syntegra-db verify`." in result.stderr.splitlines()[-1]
    assert run(*command.split(), url=filled.environment_url, cwd=Path.cwd()).returncode == 0
    assert filled.query("SELECT count(*) FROM clusters") == [(50,)]


def test_upgrade_with_table_locked_after_commit_reports_revision(filled: Database) -> None:
    migrations.downgrade("002", filled.url)
    with (
        lock_after(filled, "data_sources"),
        pytest.raises(SchemaNotVerified, match=r"^The database is at revision 003, but the schema could not be ver"),
    ):
        migrations.upgrade("003", filled.url)


def test_rollback_with_lost_network_after_commit_reports_revision(filled: Database) -> None:
    printed: list[RollbackResult] = []
    with tcp_proxy(filled.url) as proxy:

        def lose_network(result: RollbackResult) -> None:
            printed.append(result)
            proxy.refuse()
            proxy.cut()

        with pytest.raises(SchemaNotVerified, match=r"^The database is back at revision 002, and the rows are in"):
            rollback("002", unpooled_engine(proxy.url), on_commit=lose_network)
    assert printed[0].backup.path.exists()
    assert filled.query(REVISION) == [("002",)]


def test_rollback_followed_by_another_migration_reports_its_revision(filled: Database) -> None:
    def stamp(_: RollbackResult) -> None:
        filled.execute("UPDATE alembic_version SET version_num = '001'")

    with pytest.raises(MigrationFailed, match=r"committed, but .* at revision 001 instead of revision 002"):
        rollback("002", filled.engine, on_commit=stamp)


def test_rollback_command_that_causes_drift_prints_restore_command(filled: Database) -> None:
    filled.execute(CHANGE_WHEN_TABLES_ARE_DROPPED)
    result = run("syntegra-db", "rollback", "002", url=filled.environment_url, cwd=Path.cwd())
    filled.execute("DROP EVENT TRIGGER change")
    assert result.returncode == 16, result.stderr
    assert "To restore the rows:\n  syntegra-db restore backups/" in result.stdout
    assert "column data_sources.name" in result.stderr


@pytest.mark.parametrize(
    "change",
    [AUDIT, "DROP INDEX idx_data_sources_status", "ALTER TABLE processed_data ALTER source_type TYPE varchar(80)"],
    ids=["trigger", "missing index", "changed column"],
)
def test_earlier_drift_is_a_warning_after_each_command(
    filled: Database, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    with filled.connect() as connection:
        connection.execute(change.encode())
    saved = create_backup(filled.engine).path
    commands: list[Callable[[], object]] = [
        lambda: rollback("002", filled.engine),
        lambda: migrations.upgrade(HEAD, filled.url),
        lambda: restore(saved, filled.engine, ExistingRows.REPLACE),
        lambda: migrations.upgrade(HEAD, filled.url),
    ]
    for command in commands:
        caplog.clear()
        command()
        (warning,) = [message for message in caplog.messages if "already differed" in message]
        assert "`syntegra-db verify` prints how to fix it" in warning


def test_drift_that_a_restore_causes_is_an_error(filled: Database) -> None:
    saved = create_backup(filled.engine).path
    filled.execute(
        "CREATE FUNCTION change() RETURNS event_trigger LANGUAGE plpgsql AS"
        " $$BEGIN ALTER TABLE public.data_sources ALTER name DROP NOT NULL; END$$;"
        "CREATE EVENT TRIGGER change ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION change()"
    )
    with ExitStack() as cleanup:
        cleanup.callback(filled.execute, "DROP EVENT TRIGGER change")
        with pytest.raises(SchemaDrift, match=r"^The rows of .* are restored, but .* column data_sources\.name"):
            restore(saved, filled.engine, ExistingRows.REPLACE)
