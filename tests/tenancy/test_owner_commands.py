"""The owner's commands work with tenancy as before, and say to any other role who can run them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from support.drift import drift_report
from support.revisions import HEAD
from support.sample_rows import TABLES, load_rows
from syntegra_db import adoption, backup, migrations
from syntegra_db.client_policies import group_roles
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import (
    AdoptionNotPossible,
    BackupFailed,
    MigrationFailed,
    RebuildFailed,
    RestoreFailed,
    SyntegraDBError,
)
from syntegra_db.vectors.maintenance import check_index_health, rebuild

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Engine

    from support.logins import Logins
    from support.servers import Database

ROLES = group_roles("syntegra_")
ROWS = 2_000
COUNT = "SELECT count(*), sum(client_id) FROM kpi_summary"


@pytest.fixture
def owner(separated: Database, logins: Logins) -> Engine:
    """Return an engine of an owner of the tables that is no superuser, in a database with rows."""
    load_rows(separated, ROWS)
    name = logins.create()
    give = sql.SQL("ALTER TABLE {} OWNER TO {}")
    for table in (*TABLES, "alembic_version", "bound_logins"):
        separated.execute(give.format(sql.Identifier(table), sql.Identifier(name)))
    separated.execute(
        sql.SQL(
            "ALTER FUNCTION bound_client_id() OWNER TO {0}; ALTER TYPE trend_status OWNER TO {0};"
            " ALTER TYPE anomaly_severity OWNER TO {0}; GRANT CREATE ON SCHEMA public TO {0}"
        ).format(sql.Identifier(name))
    )
    return unpooled_engine(separated.url_as(name))


def plan(engine: Engine) -> None:
    with connect(engine) as connection:
        adoption.plan(connection)


def commands(path: Path) -> dict[str, tuple[type[SyntegraDBError], Callable[[Engine], object]]]:
    """Return what needs all rows, with the error for a role that does not see them; `path` is a backup."""
    return {
        "backup": (BackupFailed, backup.create_backup),
        "restore": (RestoreFailed, lambda engine: backup.restore(path, engine, backup.ExistingRows.REPLACE)),
        "rollback": (BackupFailed, lambda engine: backup.rollback("002", engine)),
        "adopt": (AdoptionNotPossible, plan),
        "vectors status": (RebuildFailed, lambda engine: check_index_health(engine, 1)),
        "vectors rebuild": (RebuildFailed, lambda engine: rebuild(engine, calibration_seconds=1)),
    }


def test_owner_saves_restores_and_rolls_back(separated: Database, owner: Engine, tmp_path: Path) -> None:
    rows = separated.query(COUNT)
    path = backup.create_backup(owner, tmp_path / "rows.dump").path
    separated.execute("DELETE FROM kpi_summary WHERE client_id = 7")
    backup.restore(path, owner, backup.ExistingRows.REPLACE)
    assert separated.query(COUNT) == rows
    path = backup.rollback("002", owner, tmp_path / "all.dump").backup.path
    assert drift_report(separated).findings == []
    backup.restore(path, owner, backup.ExistingRows.KEEP)
    assert separated.query(COUNT) == rows
    assert drift_report(separated).findings == []


def test_owner_measures_and_rebuilds_the_vector_index(separated: Database, owner: Engine) -> None:
    rows = separated.query("SELECT count(*) FROM text_summary WHERE embedding IS NOT NULL")[0][0]
    assert rebuild(owner, calibration_seconds=1).rows == rows > 0
    assert check_index_health(owner, 1).rows == rows


def test_owner_adopts_a_changed_table(separated: Database, owner: Engine) -> None:
    separated.execute("ALTER TABLE kpi_summary RENAME CONSTRAINT pk_kpi_summary TO kpi_pkey; DROP TABLE clusters")
    assert drift_report(separated).findings != []
    adoption.apply(owner, backup=False)
    assert drift_report(separated).findings == []


@pytest.mark.parametrize("group", [ROLES.service, ROLES.admin, ROLES.reader])
def test_other_logins_get_one_sentence(separated: Database, logins: Logins, tmp_path: Path, group: str) -> None:
    load_rows(separated, ROWS)
    path = backup.create_backup(separated.engine, tmp_path / "rows.dump").path
    engine = unpooled_engine(separated.url_as(logins.create(group)))
    for error, command in commands(path).values():
        with pytest.raises(error, match=r"the owner.*, postgres") as raised:
            command(engine)
        assert "query would be affected" not in str(raised.value)


@pytest.mark.parametrize("name", ["backup", "adopt", "vectors status"])
def test_forced_policies_are_named_with_the_statement_that_ends_them(
    separated: Database, owner: Engine, tmp_path: Path, name: str
) -> None:
    separated.execute("ALTER TABLE text_summary FORCE ROW LEVEL SECURITY")
    error, command = commands(tmp_path)[name]
    statement = "ALTER TABLE public.text_summary NO FORCE ROW LEVEL SECURITY;"
    with pytest.raises(error) as raised:
        command(owner)
    assert statement in str(raised.value)
    separated.execute("ALTER TABLE public.text_summary NO FORCE ROW LEVEL SECURITY;")
    command(owner)


@pytest.mark.parametrize("group", [ROLES.service, ROLES.admin, ROLES.reader])
def test_migration_by_another_login_names_who_may_run_it(separated: Database, logins: Logins, group: str) -> None:
    engine = unpooled_engine(separated.url_as(logins.create(group)))
    for migrate in (migrations.downgrade, migrations.upgrade):
        with pytest.raises(MigrationFailed, match=r"may not write alembic_version\. .* Run this as postgres"):
            migrate("002" if migrate is migrations.downgrade else HEAD, url=engine)
        migrations.downgrade("002", url=separated.url)
