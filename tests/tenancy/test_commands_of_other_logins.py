"""Each command by a login that does not own the tables: one sentence, its exit status, no attempt, no change."""

from __future__ import annotations

import re
import shlex
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from psycopg import sql

from support.clients import READER, SERVICE
from support.forked_processes import ForkedProcess, alembic, syntegra_db
from support.sample_rows import TABLES
from support.two_clients import BOUND
from syntegra_db import migrations
from syntegra_db.backup import create_backup
from syntegra_db.tenancy import bind, enable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.servers import Database, Server

OTHER = "syntegra_test_other"
NO_GROUP = "syntegra_test_no_group"
# Long enough that a command which tries again does not end in the time of a test.
LIMITS = {"SYNTEGRA_LOCK_RETRY_TIMEOUT": "600", "SYNTEGRA_LOCK_TIMEOUT": "0.2"}
SECONDS = 60
WRITE = "INSERT INTO data_sources (client_id, name, type) VALUES (7, 'open', 'simple_csv')"
WRITE_ANOMALY = "INSERT INTO anomaly_log (client_id, kpi_name, value) VALUES (7, 'open', 1)"
STATE = """
    SELECT relname::text, relfilenode::text, relacl::text, relrowsecurity::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT polname::text, polrelid::text, polroles::text, polcmd::text FROM pg_policy
    UNION ALL SELECT rolname::text, member::regrole::text, grantor::text, NULL
    FROM pg_roles LEFT JOIN pg_auth_members ON roleid = pg_roles.oid
    UNION ALL SELECT version_num, NULL, NULL, NULL FROM alembic_version
    UNION ALL SELECT login::text, client_id::text, NULL, NULL FROM bound_logins
    ORDER BY 1, 2, 3, 4
"""
# Commands that only the owner of the tables or an administrator may run, with their exit statuses; those that begin
# with `older` run on the database at 002.
OWNER_COMMANDS = {
    "downgrade 002": 11,
    "downgrade base": 11,
    "backup": 17,
    "restore FILE": 21,
    "restore FILE --replace": 21,
    "restore FILE --keep": 21,
    "rollback 002": 17,
    "rollback 002 --no-backup": 17,
    "adopt": 23,
    "adopt --apply": 23,
    "vectors status": 26,
    "vectors rebuild": 26,
    "tenancy enable": 33,
    "tenancy disable": 33,
    "tenancy disable --yes": 33,
    f"tenancy bind {OTHER} 7": 33,
    f"tenancy unbind {BOUND}": 33,
    "alembic downgrade 002": 11,
    "alembic stamp 002": 11,
    "older upgrade": 11,
    "older downgrade 001": 11,
    "older restore FILE": 21,
    "older rollback 001": 17,
    "older alembic upgrade head": 11,
}
# Commands that change nothing on a database at head.
READING_COMMANDS = [
    "upgrade",
    "status",
    "status --json",
    "verify",
    "verify --json",
    "backups .",
    "partitions list",
    "partitions create",
    "tenancy status",
    "tenancy status --json",
    "psql -c 'SELECT 1'",
    "sql 003",
    "alembic upgrade head",
    "alembic current",
    "alembic check",
    "older status",
    "older verify",
]
# They read no table.
COMMANDS_FOR_ALL = {"backups .", "psql -c 'SELECT 1'", "sql 003"}


class Databases(NamedTuple):
    """A database at head and one at 002, both with policies and with an open transaction that writes."""

    head: Database
    older: Database
    backup: Path


@pytest.fixture(scope="module")
def databases(
    server: Server, protected_template: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Databases]:
    backup = tmp_path_factory.mktemp("saved") / "rows.dump"
    with ExitStack() as stack:
        for login in (BOUND, OTHER, NO_GROUP):
            stack.enter_context(server.role(login))
        head = stack.enter_context(server.database(protected_template))
        older = stack.enter_context(server.database(migrated_template))
        migrations.downgrade("002", older.url)
        enable(older.engine)
        # As before PostgreSQL 15: the first thing that a service may not do is a foreign key to a locked table.
        older.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        bind(head.engine, BOUND, 7)
        create_backup(head.engine, backup)
        for database, statements in ((head, (WRITE, WRITE_ANOMALY)), (older, (WRITE,))):
            writer = stack.enter_context(closing(database.connect()))
            writer.autocommit = False
            for statement in statements:
                writer.execute(statement)
        yield Databases(head, older, backup)


def state(database: Database) -> list[tuple[Any, ...]]:
    names = [name for (name,) in database.query("SELECT relname::text FROM pg_class WHERE relkind = 'r'")]
    counts = sql.SQL(" UNION ALL ").join(
        sql.SQL("SELECT {}, count(*), sum(hashtext(t::text)) FROM {} AS t").format(table, sql.Identifier(table))
        for table in TABLES
        if table in names
    )
    with database.connect() as connection:
        return connection.execute(counts).fetchall() + connection.execute(STATE).fetchall()


def run(databases: Databases, login: str, command: str, path: Path) -> tuple[int, str]:
    program, *arguments = shlex.split(command.replace("FILE", str(databases.backup)))
    is_older = program == "older"
    if is_older:
        program, *arguments = arguments
    main = alembic if program == "alembic" else syntegra_db
    if main is syntegra_db:
        arguments.insert(0, program)
    database = databases.older if is_older else databases.head
    before = state(database)
    url = database.url_as(login).render_as_string(hide_password=False)
    process = ForkedProcess(main, url, path / "output", *arguments, **LIMITS, COLUMNS="200").start()
    try:
        status = process.wait(SECONDS)
    finally:
        process.kill()
    assert status is not None, process.output_text
    assert state(database) == before
    return status, process.output_text


def sentence(databases: Databases, login: str, command: str, path: Path, status: int) -> str:
    """Run a command that ends with `status`, and return its error, which is all that it reports."""
    found, output = run(databases, login, command, path)
    assert found == status, output
    assert "Traceback" not in output
    lines = [line for line in output.splitlines() if not line.startswith("INFO  [alembic.runtime.migration]")]
    assert len(lines) == 1, output
    assert re.match(r"Error: |ERROR \[syntegra_db\.migrations\._env\] ", lines[0]), output
    return lines[0]


def require_owner_sentence(databases: Databases, login: str, command: str, path: Path) -> None:
    error = sentence(databases, login, command, path, OWNER_COMMANDS[command])
    assert re.search(
        r"(Run (this|it)|Connect) as the owner|Run this as \S+, who owns the tables, or as an admin", error
    )
    assert f"{databases.head.url.username}" in error
    assert re.search(r"nothing (else )?was changed", error)


@pytest.mark.parametrize("command", OWNER_COMMANDS)
def test_owner_command_of_service_ends_at_once_with_one_sentence(
    databases: Databases, tmp_path: Path, command: str
) -> None:
    require_owner_sentence(databases, SERVICE, command, tmp_path)


@pytest.mark.parametrize("command", OWNER_COMMANDS)
def test_owner_command_of_reader_ends_at_once_with_one_sentence(
    databases: Databases, tmp_path: Path, command: str
) -> None:
    require_owner_sentence(databases, READER, command, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("command", [command for command in OWNER_COMMANDS if not command.startswith("older")])
def test_owner_command_of_bound_login_ends_at_once_with_one_sentence(
    databases: Databases, tmp_path: Path, command: str
) -> None:
    require_owner_sentence(databases, BOUND, command, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("command", [*OWNER_COMMANDS, *READING_COMMANDS])
def test_command_of_login_without_group_names_the_missing_privilege(
    databases: Databases, tmp_path: Path, command: str
) -> None:
    if command in COMMANDS_FOR_ALL:
        status, output = run(databases, NO_GROUP, command, tmp_path)
        assert status == 0, output
        return
    error = sentence(databases, NO_GROUP, command, tmp_path, 2 if "verify" in command else 8)
    assert f"ask its owner to run: GRANT SELECT ON public.alembic_version TO {NO_GROUP};" in error


@pytest.mark.long
@pytest.mark.parametrize("login", [SERVICE, READER, BOUND])
@pytest.mark.parametrize("command", READING_COMMANDS)
def test_reading_command_works_for_every_group(databases: Databases, tmp_path: Path, login: str, command: str) -> None:
    status, output = run(databases, login, command, tmp_path)
    assert status == 0, output
    assert "Traceback" not in output
