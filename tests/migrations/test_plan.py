"""`plan_migration`: what a migration would do, and the error that it would end with."""

from __future__ import annotations

import logging
from datetime import UTC
from typing import TYPE_CHECKING, LiteralString

import pytest

from support.revisions import AFTER_HEAD, HEAD, REVISIONS
from support.sample_rows import load_rows
from syntegra_db import migrations
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import (
    DatabaseAhead,
    LockTimeout,
    MigrationFailed,
    RevisionError,
    SyntegraDBError,
    TablesInOtherSchema,
)
from syntegra_db.migrations import MigrationOptions, plan_migration
from syntegra_db.migrations._retry import most_attempts

if TYPE_CHECKING:
    from support.servers import Database, Server
    from syntegra_db.recorded_steps import Direction

ROLE = "syntegra_test_planner"
OBJECTS = (
    "SELECT (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_type), (SELECT count(*) FROM pg_extension), "
    "(SELECT count(*) FROM pg_description), (SELECT count(*) FROM pg_proc)"
)


def test_upgrade_of_empty_database_applies_every_revision_and_changes_nothing(empty_database: Database) -> None:
    before = empty_database.query(OBJECTS)
    plan = plan_migration(empty_database.engine, "upgrade", "head")
    assert (plan.revision, plan.target, [planned.revision for planned in plan.revisions]) == (None, HEAD, REVISIONS)
    assert (plan.held_back, plan.lost, plan.unfinished, plan.running, plan.obstacle) == ([], [], None, None, None)
    third = plan.revisions[REVISIONS.index("003")]
    assert third.title.startswith("Create the five analytics tables, their two ENUM types")
    assert third.locks.startswith("SHARE ROW EXCLUSIVE on data_sources ")
    assert third.duration.startswith("milliseconds")
    assert plan.planned_at.tzinfo == UTC
    assert empty_database.query(OBJECTS) == before


def test_downgrade_counts_lost_rows_and_changes_nothing(database: Database) -> None:
    load_rows(database, 50)
    rows = dict(database.query("SELECT 'clusters', count(*) FROM clusters"))
    plan = plan_migration(database.engine, "downgrade", "002")
    assert (plan.revision, plan.target, plan.revisions[-1].revision) == (HEAD, "002", "003")
    assert plan.revisions[-1].downgrade.startswith("drops the two ENUM types and the five tables")
    lost = {item.what: item for item in plan.lost}
    assert (lost["clusters"].rows, lost["clusters"].is_estimate) == (rows["clusters"], False)
    assert plan.obstacle is None
    assert database.query("SELECT count(*) FROM clusters") == [(rows["clusters"],)]


@pytest.mark.parametrize(("direction", "revision"), [("upgrade", "head"), ("downgrade", HEAD)])
def test_database_at_the_target_has_nothing_to_do(database: Database, direction: Direction, revision: str) -> None:
    plan = plan_migration(database.engine, direction, revision)
    assert (plan.revisions, plan.target, plan.lost, plan.obstacle) == ([], HEAD, [], None)


OBSTACLES: dict[str, tuple[LiteralString, ...]] = {
    "no extension": (f"GRANT CREATE ON SCHEMA public TO {ROLE}",),
    "no right to create": (),
    "other owner": (f"GRANT CREATE ON SCHEMA public TO {ROLE}",),
    "read-only": (
        f"GRANT CREATE ON SCHEMA public TO {ROLE}",
        f"ALTER ROLE {ROLE} SET default_transaction_read_only = on",
    ),
    "tables outside migrations": (
        f"GRANT CREATE ON SCHEMA public TO {ROLE}",
        "CREATE EXTENSION vector",
        f"SET ROLE {ROLE}",
        "CREATE TABLE data_sources (id bigint PRIMARY KEY, client_id bigint, name text, type text, config_json jsonb)",
    ),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_obstacle_is_the_error_of_the_migration(server: Server, empty_database: Database, obstacle: str) -> None:
    with server.role(ROLE):
        if obstacle == "other owner":
            migrations.upgrade("001", empty_database.url)
            empty_database.execute(f"GRANT SELECT ON alembic_version TO {ROLE}")
        with empty_database.connect() as connection:
            for statement in OBSTACLES[obstacle]:
                connection.execute(statement)
        url = empty_database.url_as(ROLE)
        plan = plan_migration(unpooled_engine(url), "upgrade", "head")
        with pytest.raises(SyntegraDBError) as failure:
            migrations.upgrade("head", url)
        assert plan.obstacle is not None
        assert plan.obstacle.exit_status == failure.value.exit_status, (plan.obstacle, failure.value)
        empty_database.execute(f"DROP OWNED BY {ROLE} CASCADE")


def test_errors_before_the_migration_are_raised(database: Database) -> None:
    wrong: list[tuple[Direction, str]] = [("upgrade", "777"), ("upgrade", ""), ("upgrade", "002"), ("downgrade", "-9")]
    for direction, revision in wrong:
        with pytest.raises(RevisionError):
            plan_migration(database.engine, direction, revision)
    database.execute("CREATE SCHEMA app")
    elsewhere = database.url.update_query_dict({"options": "-c search_path=app"})
    with pytest.raises(TablesInOtherSchema):
        plan_migration(unpooled_engine(elsewhere), "upgrade", "head")
    assert plan_migration(database.engine, "upgrade", "head", schema="app").schema == "app"
    with pytest.raises(MigrationFailed):
        plan_migration(database.engine, "upgrade", "head", schema="missing")
    database.execute(f"UPDATE alembic_version SET version_num = '{AFTER_HEAD}'")
    with pytest.raises(DatabaseAhead):
        plan_migration(database.engine, "upgrade", "head")


def test_running_migration_is_named(empty_database: Database) -> None:
    with connect(empty_database.engine) as connection:
        migrations.acquire_session_lock(
            connection, migrations.lock_key("alembic_version", "public"), 1, holder_task="migration"
        )
        plan = plan_migration(empty_database.engine, "upgrade", "head")
    assert plan.running is not None
    assert plan.running.startswith("pid ")


@pytest.mark.parametrize("retry", [0, 0.2, 1.5])
def test_attempts_are_at_most_those_of_the_plan(
    database_003: Database, caplog: pytest.LogCaptureFixture, retry: float
) -> None:
    options = MigrationOptions(lock_timeout=0.05, lock_retry_timeout=retry)
    most = plan_migration(database_003.engine, "downgrade", "002", options).limits.attempts
    assert most == most_attempts(options)
    with database_003.connect() as holder, caplog.at_level(logging.INFO, "syntegra_db"):
        holder.autocommit = False
        holder.execute("LOCK TABLE clusters IN ROW EXCLUSIVE MODE")
        with pytest.raises(LockTimeout):
            migrations.downgrade("002", database_003.url, options)
    attempts = 1 + sum("trying again" in message for message in caplog.messages)
    assert attempts <= most <= attempts + 3
