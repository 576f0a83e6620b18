"""The settings of a role, of a database and of the environment change no result of a command, a model or a search."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, LiteralString

import alembic.command
import pytest
from psycopg import sql
from sqlalchemy import literal_column, select, text
from typer.testing import CliRunner

from support.bulk_rows import FULL, stored
from support.legacy_databases import TABLES, create_legacy_database, read_rows
from support.sample_rows import load_rows, row_digests
from support.servers import Database
from support.sessions import session_on
from support.values import WRITES, is_same
from syntegra_db import catalog, migrations
from syntegra_db.cli import app
from syntegra_db.database import create_async_engine
from syntegra_db.models import KpiSummary
from syntegra_db.vectors import search

if TYPE_CHECKING:
    from support.servers import Server
    from syntegra_db.models import Base

# The values that change most of what the server writes and reads.
HOSTILE = {
    "DateStyle": "German, DMY",
    "IntervalStyle": "iso_8601",
    "TimeZone": "America/St_Johns",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "quote_all_identifiers": "on",
    "standard_conforming_strings": "off",
    "backslash_quote": "off",
    "search_path": "public, extras, pg_catalog",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "xmloption": "document",
    "client_encoding": "latin1",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "row_security": "off",
    "check_function_bodies": "off",
    "default_statistics_target": "1",
    "default_tablespace": "pg_default",
    "default_table_access_method": "heap",
    "default_toast_compression": "pglz",
    "plan_cache_mode": "force_generic_plan",
    "synchronize_seqscans": "off",
    "lc_messages": "C",
    "lc_monetary": "C",
    "gin_pending_list_limit": "64",
    "statement_timeout": "60000",
    "client_min_messages": "debug1",
}
COMMANDS = (
    "status",
    "verify",
    "verify --json",
    "vectors status --seconds 1",
    "vectors rebuild --lists 2",
    "backup --output rows.dump",
    "backups .",
    "restore rows.dump --replace",
    "rollback 002 --output rollback.dump",
    "restore rollback.dump --keep",
    "adopt",
    "verify",
)


def run(arguments: str) -> str:
    result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == 0, (arguments, result.output, result.exception)
    return result.output


def catalog_findings(database: Database) -> list[catalog.Finding]:
    """Compare the schema in a session of a service, whose settings are those of the role and database."""
    with session_on(database) as session:
        migrations.require_head(session.connection())
        return catalog.verify(session.connection()).findings


def read_all(database: Database) -> dict[type[Base], list[dict[str, Any]]]:
    with session_on(database) as session:
        return {model: stored(session, model) for model in FULL}


def set_for(database: Database, kind: LiteralString, owner: str, name: str, value: str) -> None:
    statement = sql.SQL("ALTER " + kind + " {} SET {} TO {}")
    items = sql.SQL(", ").join(sql.Literal(item) for item in value.split(", "))
    with database.connect() as connection:
        connection.execute(statement.format(sql.Identifier(owner), sql.Identifier(name), items))


def set_all(database: Database) -> None:
    for name, value in HOSTILE.items():
        set_for(database, "DATABASE", database.name, name, value)


def reset(database: Database) -> None:
    with database.connect() as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(sql.Identifier(database.name)))


@pytest.fixture
def rows(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database with rows, which the settings name."""
    load_rows(database, 300)
    database.execute("CREATE SCHEMA extras; CREATE TABLE extras.clusters ()")
    monkeypatch.setenv("DATABASE_URL", database.environment_url)
    return database


def test_commands_with_every_setting_change_nothing(rows: Database) -> None:
    before = row_digests(rows)
    set_all(rows)
    for command in COMMANDS:
        run(command)
    reset(rows)
    assert row_digests(rows) == before
    assert catalog_findings(rows) == []


def test_migrations_and_adoption_with_every_setting_give_the_same_schema(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database.environment_url)
    set_all(empty_database)
    for command in ("upgrade", "downgrade 001", "downgrade base", "upgrade head"):
        run(command)
    alembic.command.check(migrations.alembic_config())
    run("downgrade base")
    reset(empty_database)
    empty_database.execute("DROP TABLE alembic_version")
    create_legacy_database(empty_database, "half_run")
    before = read_rows(empty_database)
    set_all(empty_database)
    run("adopt")
    run("adopt --apply --yes")
    reset(empty_database)
    after = read_rows(empty_database)
    assert {key: after[key] for key in before} == before
    assert catalog_findings(empty_database) == []


def test_models_bulk_loads_and_searches_with_every_setting_read_what_they_wrote(rows: Database) -> None:
    set_all(rows)
    with session_on(rows) as session:
        assert [len(search(session, [1.0] * 384, client_id=client, limit=2)) for client in (1, 2)] == [2, 2]
        session.execute(text(f"TRUNCATE {', '.join(TABLES)}"))
        session.commit()
        for way, (model, row) in itertools.product(WRITES, FULL.items()):
            WRITES[way](session, model, {**row, "id": 1})
            (read,) = stored(session, model)
            assert [name for name, value in row.items() if not is_same(read[name], value)] == [], (way, model)
            session.rollback()


def test_asyncio_engine_with_every_setting_reads_what_is_stored(rows: Database) -> None:
    async def read() -> Any:
        engine = create_async_engine(rows.url)
        async with engine.connect() as connection:
            found: Any = await connection.execute(select(KpiSummary.period_start, literal_column("0.1::float8 + 0.2")))
            row = found.first()
        await engine.dispose()
        return row

    expected = rows.query("SELECT period_start, 0.1::float8 + 0.2 FROM kpi_summary LIMIT 1")
    set_all(rows)
    assert [asyncio.run(read())] == expected


def test_each_setting_alone_changes_no_comparison_and_no_value(rows: Database) -> None:
    expected = read_all(rows)
    for name, value in HOSTILE.items():
        set_for(rows, "DATABASE", rows.name, name, value)
        assert (name, catalog_findings(rows), read_all(rows)) == (name, [], expected)
        reset(rows)


@pytest.mark.parametrize("way", ["role", "PGOPTIONS", "variables"])
def test_settings_of_role_and_environment_change_nothing(
    rows: Database, server: Server, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    expected = read_all(rows)
    with server.role("syntegra_hostile") as role:
        if way == "role":
            server.execute("ALTER ROLE syntegra_hostile SUPERUSER")
            for name, value in HOSTILE.items():
                set_for(rows, "ROLE", role, name, value)
            rows = Database(rows.url_as(role))
            monkeypatch.setenv("DATABASE_URL", rows.environment_url)
        elif way == "PGOPTIONS":
            options = {name: value for name, value in HOSTILE.items() if name != "client_encoding"}
            monkeypatch.setenv(
                "PGOPTIONS", " ".join(f"-c {n}={v.replace(' ', chr(92) + ' ')}" for n, v in options.items())
            )
        else:
            monkeypatch.setenv("PGDATESTYLE", "German, DMY")
            monkeypatch.setenv("PGTZ", "America/St_Johns")
            monkeypatch.setenv("PGCLIENTENCODING", "latin1")
        assert (catalog_findings(rows), read_all(rows)) == ([], expected)
        for command in ("status", "verify", "backup --output rows.dump", "restore rows.dump --replace"):
            run(command)


def test_command_that_writes_under_read_only_default_names_it(rows: Database) -> None:
    run("backup --output rows.dump")
    before = row_digests(rows)
    set_for(rows, "DATABASE", rows.name, "default_transaction_read_only", "on")
    for command in ("downgrade 002", "rollback 002", "vectors rebuild --lists 2", "restore rows.dump --replace"):
        result = CliRunner().invoke(app, command.split())
        assert (result.exit_code != 0, "default_transaction_read_only" in result.output) == (True, True), command
    for command in ("status", "verify", "vectors status --seconds 1", "backup --output again.dump"):
        run(command)
    assert row_digests(rows) == before
