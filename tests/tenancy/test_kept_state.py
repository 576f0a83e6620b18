"""Every command that creates tables protects them in the transaction that creates them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg.errors import InsufficientPrivilege

from support import psql
from support.legacy_databases import create_legacy_database
from support.logins import ROLES, Logins, clients_seen, rows_as
from support.protection import BARE_TABLES, PROTECTED_TABLES, never_bare
from support.revisions import HEAD, REVISIONS
from support.sample_rows import TABLES, load_rows
from syntegra_db import adoption, migrations
from syntegra_db.backup import ExistingRows, restore, rollback
from syntegra_db.client_policies import SHARED_TABLES
from syntegra_db.migrations import render_sql_script
from syntegra_db.tenancy import enable

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

ROWS = 2_000
CLIENT_TABLES = tuple(table for table in TABLES if table not in SHARED_TABLES)


def require_protected(database: Database, login: str, tables: tuple[str, ...] = CLIENT_TABLES) -> None:
    """Require that `tables` have all policies, and that `login` sees rows of its client only, at once."""
    assert [row[0] for row in database.query(PROTECTED_TABLES)] == sorted(tables)
    assert database.query(BARE_TABLES) == []
    for table in tables:
        assert clients_seen(database, login, table, 7) <= {7}
        assert clients_seen(database, login, table) == set()


def tables_at(revision: str) -> tuple[str, ...]:
    created = {"base": (), "001": ("data_sources",), "002": ("data_sources", "processed_data")}
    return created.get(revision, CLIENT_TABLES)


def test_migrations_one_by_one_protect_the_tables_of_each(separated: Database, logins: Logins) -> None:
    login = logins.create(ROLES.service)
    with never_bare(separated):
        for target in [*reversed(REVISIONS[:-1]), "base"]:
            migrations.downgrade(target, separated.url)
            require_protected(separated, login, tables_at(target))
        for target in REVISIONS:
            migrations.upgrade(target, separated.url)
            require_protected(separated, login, tables_at(target))
    load_rows(separated, ROWS)
    assert clients_seen(separated, login, "kpi_summary", 7) == {7}
    assert rows_as(separated, login, "SELECT version_num FROM alembic_version") == [(HEAD,)]
    assert rows_as(separated, login, "SELECT count(*) > 0 FROM trend_signals") == [(True,)]
    with pytest.raises(InsufficientPrivilege):
        rows_as(separated, login, "DELETE FROM trend_signals")


def test_migration_in_one_run_protects_the_tables(separated: Database, logins: Logins) -> None:
    login = logins.create(ROLES.service)
    with never_bare(separated):
        migrations.downgrade("base", separated.url)
        migrations.upgrade(url=separated.url)
    require_protected(separated, login)


def test_files_protect_the_tables(separated: Database, logins: Logins, tmp_path: Path) -> None:
    login = logins.create(ROLES.service)
    with never_bare(separated):
        for revision in reversed(REVISIONS):
            feed(separated, render_sql_script(revision, rollback=True).text, tmp_path)
        for revision in REVISIONS:
            feed(separated, render_sql_script(revision).text, tmp_path)
            require_protected(separated, login, tables_at(revision))


def feed(database: Database, script: str, folder: Path) -> None:
    result = psql.feed(database.url, script, folder)
    assert result.returncode == 0, result.stderr


def test_rollback_and_restore_protect_the_tables(separated: Database, logins: Logins, tmp_path: Path) -> None:
    load_rows(separated, ROWS)
    login = logins.create(ROLES.service)
    with never_bare(separated):
        saved = rollback("001", separated.engine, tmp_path / "rows.dump").backup
        require_protected(separated, login, tables_at("001"))
        restore(saved.path, separated.engine, ExistingRows.KEEP)
    require_protected(separated, login)
    assert clients_seen(separated, login, "kpi_summary", 7) == {7}


def test_restore_into_a_database_without_tables_protects_them(
    separated: Database, logins: Logins, tmp_path: Path
) -> None:
    load_rows(separated, ROWS)
    login = logins.create(ROLES.service)
    saved = rollback("base", separated.engine, tmp_path / "rows.dump").backup
    with never_bare(separated):
        restore(saved.path, separated.engine)
    require_protected(separated, login)
    assert clients_seen(separated, login, "kpi_summary", 7) == {7}


def test_adoption_protects_the_tables(logins: Logins, empty_database: Database) -> None:
    enable(empty_database.engine)
    create_legacy_database(empty_database, "half_run")
    with never_bare(empty_database):
        adoption.apply(empty_database.engine, backup=False)
    assert migrations.upgrade(url=empty_database.url) == HEAD
    require_protected(empty_database, logins.create(ROLES.service))


def test_upgrade_inside_a_transaction_of_the_caller_protects_the_tables(separated: Database, logins: Logins) -> None:
    login = logins.create(ROLES.service)
    with separated.engine.begin() as connection:
        migrations.run_in_transaction(connection, "downgrade", "base")
        migrations.run_in_transaction(connection, "upgrade", HEAD)
    require_protected(separated, login)
