"""A table that is renamed or dropped while a migration waits for a lock is not replaced by one of another schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest

from support import psql
from support.checkouts import Checkout
from support.legacy_databases import execute
from support.processes import in_thread, running, wait_for_rows
from support.revisions import AFTER_HEAD, HEAD
from support.sample_rows import row_digests
from support.servers import Database
from syntegra_db import migrations
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import MigrationFailed
from syntegra_db.migrations import render_sql_script

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.servers import Server

PATH = "options=-csearch_path%3Dapp,public"
EXIT_MIGRATION_FAILED = 11
AT_THE_SAME_TIME = "a table was renamed or dropped at the same time"
WAITING = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
RENAME: LiteralString = "ALTER TABLE app.clusters RENAME TO clusters_old"
PAUSE_AT_UPDATE = (
    "CREATE FUNCTION app.pause() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END'",
    "CREATE TRIGGER pause BEFORE UPDATE ON app.clusters FOR EACH ROW EXECUTE FUNCTION app.pause()",
)
GOING: dict[str, LiteralString] = {
    "renamed": RENAME,
    "dropped": "DROP TABLE app.clusters",
    "moved": "CREATE SCHEMA old; ALTER TABLE app.clusters SET SCHEMA old",
}


def by_command(database: Database, _folder: Path) -> None:
    with running(Database(database.url.update_query_string(PATH)), "syntegra-db", "downgrade", "002") as process:
        _, errors = process.communicate()
    assert process.returncode == EXIT_MIGRATION_FAILED, errors
    assert AT_THE_SAME_TIME in errors
    assert "would have changed public.clusters, which is in another schema" in errors


def by_file(database: Database, folder: Path) -> None:
    script = render_sql_script(HEAD, rollback=True).text.replace("lock_timeout = '500ms'", "lock_timeout = '60s'")
    result = psql.feed(database.url, script, folder, search_path="app,public")
    assert result.returncode == 3
    assert AT_THE_SAME_TIME in result.stderr


def in_transaction(database: Database, _folder: Path) -> None:
    engine = unpooled_engine(database.url.update_query_string(PATH))
    with connect(engine) as connection:
        with pytest.raises(MigrationFailed, match=AT_THE_SAME_TIME):
            migrations.run_in_transaction(connection, "downgrade", "002")
        connection.rollback()


@pytest.mark.parametrize("going", GOING)
@pytest.mark.parametrize("way", [by_command, by_file, in_transaction])
def test_downgrade_that_waits_while_a_table_goes_drops_nothing_of_another_schema(
    two_sets: Database, tmp_path: Path, way: Callable[[Database, Path], None], going: str
) -> None:
    before = row_digests(two_sets)
    with two_sets.connect() as writer:
        writer.execute("BEGIN; INSERT INTO app.anomaly_log (client_id, kpi_name, value) VALUES (1, 'a', 1)")

        def go() -> None:
            wait_for_rows(two_sets, WAITING)
            with two_sets.connect() as other:
                other.execute(GOING[going])
            writer.execute("COMMIT")

        with in_thread(go):
            way(two_sets, tmp_path)
    assert row_digests(two_sets) == before
    assert two_sets.query("SELECT version_num FROM app.alembic_version") == [(HEAD,)]


@pytest.mark.parametrize("way", ["command", "file"])
def test_backfill_stops_when_its_table_goes(two_sets: Database, server: Server, tmp_path: Path, way: str) -> None:
    checkout = Checkout(tmp_path / "checkout")
    checkout.add_revision(
        AFTER_HEAD,
        """
        op.add_column("clusters", sa.Column("label", sa.Text(), server_default=""))
        op.backfill("clusters", {"label": "'filled'"}, "label = ''", batch=1)
        """,
        'op.drop_column("clusters", "label")',
    )
    checkout.write_manifests(server)
    execute(two_sets, "ALTER TABLE public.clusters ADD label text DEFAULT ''")
    before = row_digests(two_sets)
    execute(two_sets, *PAUSE_AT_UPDATE)

    def go() -> None:
        wait_for_rows(two_sets, "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        # It waits for the end of the batch.
        two_sets.execute(RENAME)

    with in_thread(go):
        if way == "command":
            by_path = Database(two_sets.url.update_query_string(PATH))
            result = checkout.run("syntegra-db", "upgrade", database=by_path)
        else:
            script = checkout.succeed("syntegra-db", "sql", AFTER_HEAD)
            result = psql.feed(two_sets.url, script, tmp_path, search_path="app,public")
    assert result.returncode == (EXIT_MIGRATION_FAILED if way == "command" else 3), result.stderr
    assert AT_THE_SAME_TIME in result.stderr
    assert two_sets.query("SELECT DISTINCT label FROM public.clusters") == [("",)]
    assert row_digests(two_sets) == before
