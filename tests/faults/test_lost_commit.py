"""The connection is lost around COMMIT: the commands find out what the server did, and report that."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from support.commands import run
from support.legacy_databases import create_legacy_database
from support.processes import in_thread
from support.sample_rows import load_rows
from support.tcp_proxy import tcp_proxy
from syntegra_db import adoption, migrations
from syntegra_db.backup import ExistingRows, create_backup, restore, rollback
from syntegra_db.connections import conninfo, unpooled_engine
from syntegra_db.errors import AdoptionFailed, CommitUnconfirmed, MigrationFailed, RestoreFailed, SyntegraDBError
from syntegra_db.migrations import _commit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from support.servers import Database, EmbeddedServer

BEFORE_COMMIT = b"pg_current_xact_id_if_assigned"
WAITING_COMMITS = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
REVISION = "SELECT version_num FROM alembic_version"


@dataclass(frozen=True)
class Operation:
    """A command that commits once: how to give it work, run it, and see whether it was done."""

    prepare: Callable[[Database], object]
    run: Callable[[Engine], object]
    is_done: Callable[[Database], bool]
    failure: type[SyntegraDBError]


def save_and_delete_rows(database: Database) -> None:
    migrations.upgrade(url=database.url)
    load_rows(database, 500)
    create_backup(database.engine, Path("saved.dump"))
    database.execute("DELETE FROM clusters WHERE id > 5")


def fill(database: Database) -> None:
    migrations.upgrade(url=database.url)
    load_rows(database, 500)


OPERATIONS = {
    "restore": Operation(
        save_and_delete_rows,
        lambda engine: restore(Path("saved.dump"), engine, ExistingRows.REPLACE),
        lambda database: database.query("SELECT count(*) FROM clusters") == [(50,)],
        RestoreFailed,
    ),
    "rollback": Operation(
        fill,
        lambda engine: rollback("002", engine),
        lambda database: database.query(REVISION) == [("002",)],
        MigrationFailed,
    ),
    "adopt": Operation(
        lambda database: create_legacy_database(database, "half_run"),
        lambda engine: adoption.apply(engine, backup=False),
        lambda database: database.query(REVISION) == [("003",)],
        AdoptionFailed,
    ),
    "upgrade": Operation(
        lambda database: migrations.upgrade("002", database.url),
        lambda engine: migrations.upgrade("003", engine),
        lambda database: database.query(REVISION) == [("003",)],
        MigrationFailed,
    ),
    "downgrade": Operation(
        lambda database: migrations.upgrade("003", database.url),
        lambda engine: migrations.downgrade("002", engine),
        lambda database: database.query(REVISION) == [("002",)],
        MigrationFailed,
    ),
}
every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


@every_operation
def test_operation_with_lost_answer_to_commit_succeeds(
    empty_database: Database, operation: Operation, caplog: pytest.LogCaptureFixture
) -> None:
    operation.prepare(empty_database)
    with tcp_proxy(empty_database.url) as proxy:
        proxy.lose_answer(after=BEFORE_COMMIT)
        operation.run(unpooled_engine(proxy.url))
        assert proxy.lost.is_set()
    assert operation.is_done(empty_database)
    assert "The transaction was committed" in caplog.messages


@every_operation
def test_operation_with_lost_commit_fails_and_changes_nothing(empty_database: Database, operation: Operation) -> None:
    operation.prepare(empty_database)
    with tcp_proxy(empty_database.url) as proxy:
        proxy.lose_request(after=BEFORE_COMMIT)
        with pytest.raises(operation.failure, match=r"[Nn]othing (else )?was changed|It is still at"):
            operation.run(unpooled_engine(proxy.url))
        assert proxy.lost.is_set()
    assert not operation.is_done(empty_database)


@every_operation
def test_operation_that_cannot_ask_again_says_how(
    empty_database: Database, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_commit, "CONFIRMATION_TIMEOUT_SECONDS", 0.5)
    operation.prepare(empty_database)
    with tcp_proxy(empty_database.url) as proxy:
        proxy.lose_answer(after=BEFORE_COMMIT, then_refuse=True)
        with pytest.raises(CommitUnconfirmed, match="it is unknown whether the changes were committed") as raised:
            operation.run(unpooled_engine(proxy.url))
    (statement,) = re.findall(r'-c "(.+?)"', str(raised.value))
    assert empty_database.query(statement) == [("committed",)]
    assert operation.is_done(empty_database)


@contextmanager
def commits_that_wait(server: EmbeddedServer) -> Iterator[None]:
    """Commits wait for a standby that does not exist."""
    server.execute("ALTER SYSTEM SET synchronous_standby_names = 'missing'")
    server.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        server.execute("ALTER SYSTEM RESET synchronous_standby_names")
        server.execute("SELECT pg_reload_conf()")


@contextmanager
def during_commit(server: EmbeddedServer, act: Callable[[psycopg.Connection], object]) -> Iterator[None]:
    """Call `act` as soon as a commit waits for the standby."""

    def watch() -> None:
        with psycopg.connect(conninfo(server.url), autocommit=True) as connection:
            deadline = time.monotonic() + 60
            while not connection.execute(WAITING_COMMITS).fetchall():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            act(connection)

    with in_thread(watch):
        yield


@every_operation
def test_operation_terminated_during_commit_reports_success(own_server: EmbeddedServer, operation: Operation) -> None:
    end = f"SELECT pg_terminate_backend(pid) FROM ({WAITING_COMMITS}) AS waiting"
    with own_server.database() as database:
        operation.prepare(database)
        with (
            commits_that_wait(own_server),
            during_commit(own_server, lambda connection: connection.execute(end)),
        ):
            operation.run(unpooled_engine(database.url))
        assert operation.is_done(database)


def test_operation_waits_for_commit_in_progress(own_server: EmbeddedServer) -> None:
    """The network fails while COMMIT waits for a standby, which answers later."""
    operation = OPERATIONS["restore"]
    with own_server.database() as database, tcp_proxy(database.url) as proxy:
        operation.prepare(database)

        def cut_then_answer(connection: psycopg.Connection) -> None:
            proxy.cut()
            time.sleep(1)
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")

        with commits_that_wait(own_server), during_commit(own_server, cut_then_answer):
            operation.run(unpooled_engine(proxy.url))
        assert operation.is_done(database)


@every_operation
def test_operation_with_server_stopped_during_commit_reports_success(
    own_server: EmbeddedServer, operation: Operation
) -> None:
    """The server stopped after it had stored the commit; it answers again after its recovery."""

    def restart(connection: psycopg.Connection) -> None:
        connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
        own_server.stop_immediately()
        time.sleep(0.5)
        own_server.start()

    with own_server.database() as database:
        operation.prepare(database)
        with commits_that_wait(own_server), during_commit(own_server, restart):
            operation.run(unpooled_engine(database.url))
        assert operation.is_done(database)


@pytest.mark.long
def test_rollback_without_confirmation_exits_29_and_names_backup(database: Database, tmp_path: Path) -> None:
    load_rows(database, 500)
    with tcp_proxy(database.url) as proxy:
        proxy.lose_answer(after=BEFORE_COMMIT, then_refuse=True)
        result = run(
            "syntegra-db", "rollback", "002", url=proxy.url.render_as_string(hide_password=False), cwd=tmp_path
        )
    (saved,) = Path("backups").iterdir()
    assert result.returncode == 29, result.stderr
    assert result.stderr.endswith(f"To restore the rows after `committed`: syntegra-db restore {saved} --keep\n")
    assert database.query(REVISION) == [("002",)]


def test_rejected_commit_is_rolled_back(database: Database) -> None:
    """A deferred constraint of the application is checked by COMMIT itself."""
    save_and_delete_rows(database)
    database.execute(
        "CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'full moon'; END$$;"
        "CREATE CONSTRAINT TRIGGER moon AFTER INSERT ON clusters DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION reject()"
    )
    with pytest.raises(RestoreFailed, match=r"full moon\. Nothing was changed"):
        restore(Path("saved.dump"), database.engine, ExistingRows.REPLACE)
    assert database.query("SELECT count(*) FROM clusters") == [(5,)]
