"""Statements and commands of messages: executed as printed, with awkward names, they remove the cause."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from psycopg import sql
from sqlalchemy.ext.asyncio import create_async_engine

from support.commands import PROGRAMS, ROOT, run, succeed
from support.drift import drift_report
from support.legacy_databases import create_legacy_database, execute
from support.revisions import HEAD, REVISIONS
from support.servers import ROLE_PASSWORD, Database
from syntegra_db import adoption, backup, migrations
from syntegra_db.catalog import read_status
from syntegra_db.client_programs import find_program
from syntegra_db.connections import connect, conninfo, unpooled_engine
from syntegra_db.errors import (
    AdoptionNotPossible,
    BackupFailed,
    DatabaseNotFound,
    ExtensionUnavailable,
    LockTimeout,
    RebuildFailed,
    RevisionError,
    SyntegraDBError,
)
from syntegra_db.migrations._lock import acquire_session_lock
from syntegra_db.settings import parse_url
from syntegra_db.vectors.maintenance import rebuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from support.servers import Server

ONE_LINE_NAMES = ("kpi-ro@corp.iam", "kpi nuevos", "O'Brien\"x", "Ñandú", "lateral")
NAMES = (*ONE_LINE_NAMES, 'line\nbreak\\"')
OWNER = "Dueño de todo"


@pytest.fixture(params=NAMES)
def role(request: pytest.FixtureRequest, server: Server) -> Iterator[str]:
    """A role with an awkward name and no privileges."""
    with server.role(request.param) as name:
        yield name


def execute_printed(database: Database, message: str, pattern: str) -> None:
    """Execute the statement of `message` that matches `pattern`, as an administrator."""
    statement = re.search(pattern, message, re.DOTALL)
    assert statement is not None, message
    with database.connect() as connection:
        connection.execute(statement[0].encode())


def drop_owned(database: Database, role: str) -> None:
    database.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(role)))


def in_connection(engine: Engine, work: Callable[..., object]) -> object:
    with connect(engine) as connection:
        return work(connection)


def readers(engine: Engine, tmp_path: Path) -> dict[str, Callable[[], object]]:
    """Return what reads the revision: each command, and the functions of services."""

    async def require_head() -> None:
        asynchronous = create_async_engine(engine.url)
        try:
            await migrations.async_require_head(asynchronous)
        finally:
            await asynchronous.dispose()

    return {
        "status": lambda: in_connection(engine, read_status),
        "require_head": lambda: migrations.require_head(engine),
        "async_require_head": lambda: asyncio.run(require_head()),
        "upgrade": lambda: migrations.upgrade(url=engine),
        "adopt": lambda: in_connection(engine, adoption.plan),
        "backup": lambda: backup.create_backup(engine, tmp_path / "rows.dump"),
        "rollback": lambda: backup.rollback("002", engine),
    }


@pytest.mark.parametrize(
    ("hide", "fix"),
    [
        ("REVOKE USAGE ON SCHEMA public FROM PUBLIC", r"GRANT USAGE .*;"),
        ("ALTER TABLE alembic_version ENABLE ROW LEVEL SECURITY", r"ALTER TABLE .*;"),
        ("REVOKE SELECT ON alembic_version FROM PUBLIC", r"GRANT SELECT .*;"),
    ],
)
def test_unreadable_revision_is_explained_by_all_with_statement_that_works(
    database: Database, role: str, tmp_path: Path, hide: str, fix: str
) -> None:
    execute(database, "GRANT SELECT ON alembic_version TO PUBLIC", hide)
    engine = unpooled_engine(database.url_as(role))
    messages = {}
    for name, work in readers(engine, tmp_path).items():
        with pytest.raises(SyntegraDBError) as error:
            work()
        messages[name] = str(error.value)
    assert all(re.search("cannot read|can hide|may not use", message) for message in messages.values()), messages
    execute_printed(database, messages["require_head"], fix)
    migrations.require_head(engine)
    drop_owned(database, role)


def test_role_without_privileges_gets_grants_that_work(database: Database, role: str) -> None:
    database.execute(
        sql.SQL("GRANT SELECT ON alembic_version, clusters TO {0}; GRANT INSERT ON clusters TO {0}").format(
            sql.Identifier(role)
        )
    )
    # The sequences matter once the role may insert.
    for _ in range(2):
        report = drift_report(Database(database.url_as(role)))
        execute(database, *(finding.fix for finding in (*report.findings, *report.notes)))
    report = drift_report(Database(database.url_as(role)))
    assert (report.findings, report.notes) == ([], [])
    drop_owned(database, role)


def test_role_that_may_create_objects_is_revoked_as_printed(database: Database, role: str) -> None:
    database.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(sql.Identifier(role)))
    (note,) = drift_report(database).notes
    execute(database, note.fix)
    assert drift_report(database).notes == []


UNPRINTABLE = ["new\nline", "\t", 'a\r\\"b', "\x1b[31m", "\u202eback", "\U000e0041"]
EXTENSION_PATHS = {
    "default": ("SELECT 1", None),
    "role": ("ALTER ROLE {role} SET search_path = public", None),
    "role in database": ("ALTER ROLE {role} IN DATABASE {database} SET search_path = 'public'", None),
    "database": ("ALTER DATABASE {database} SET search_path = public", None),
    "SET ROLE": ("ALTER ROLE {role} SET role = {owner}", None),
    "URL": ("SELECT 1", "-csearch_path=public"),
    "URL with more": ("SELECT 1", r"-c work_mem=8MB -c search_path=Public,\ pg_catalog"),
}


@pytest.mark.parametrize("path", EXTENSION_PATHS)
def test_extension_outside_search_path_is_added_as_printed(
    server: Server, empty_database: Database, role: str, path: str
) -> None:
    database, (statement, options) = empty_database, EXTENSION_PATHS[path]
    with server.role(OWNER) as owner:
        names = {"role": role, "owner": owner, "database": database.name}
        for name in (role, owner):
            server.execute(sql.SQL("ALTER ROLE {} SUPERUSER").format(sql.Identifier(name)))
        execute(database, 'CREATE SCHEMA "Más ext"; CREATE EXTENSION vector SCHEMA "Más ext"')
        database.execute(sql.SQL(statement).format(**{key: sql.Identifier(name) for key, name in names.items()}))
        url = database.url_as(role)
        if options:
            url = url.update_query_dict({"options": options})
        with pytest.raises(ExtensionUnavailable) as error:
            migrations.upgrade(url=url)
        if options:
            printed = re.search(r"options=(\S+);", str(error.value))
            assert printed is not None, error.value
            url = url.update_query_dict({"options": unquote(printed[1])})
        else:
            execute_printed(database, str(error.value), r"(SET ROLE NONE; )?ALTER ROLE .*;")
        assert migrations.upgrade(url=url) == HEAD
        assert drift_report(Database(url)).notes == []
        for name in (role, owner):
            drop_owned(database, name)


@pytest.mark.parametrize("schema", ["Más ext", "O'Brien\"x", "lateral", *UNPRINTABLE])
def test_note_on_extension_outside_search_path_is_fixed_as_printed(database: Database, schema: str) -> None:
    name = sql.Identifier(schema)
    database.execute(sql.SQL("CREATE SCHEMA {0}; ALTER EXTENSION vector SET SCHEMA {0}").format(name))
    database.execute(sql.SQL("ALTER DATABASE {} SET search_path = public").format(sql.Identifier(database.name)))
    (note,) = drift_report(database).notes
    assert note.fix.isprintable()
    execute(database, note.fix)
    assert drift_report(database).notes == []


@pytest.mark.parametrize("name", [*UNPRINTABLE, "new\nline, x"])
@pytest.mark.parametrize("is_in_url", [False, True])
def test_names_with_control_characters_are_printed_on_one_line(
    server: Server, empty_database: Database, name: str, *, is_in_url: bool
) -> None:
    database = Database(empty_database.url.set(database=f"syntegra_{name}"))
    with server.role(f"syntegra_{name}") as role:
        names = {"name": sql.Identifier(name), "database": sql.Identifier(database.name), "role": sql.Identifier(role)}
        server.execute(sql.SQL("CREATE DATABASE {database} OWNER {role}").format(**names))
        try:
            server.execute(sql.SQL("ALTER ROLE {role} SUPERUSER").format(**names))
            database.execute(sql.SQL("CREATE SCHEMA {name}; CREATE EXTENSION vector SCHEMA {name}").format(**names))
            url = database.url_as(role)
            if is_in_url:
                url = url.update_query_dict({"options": "-csearch_path=public"})
            with pytest.raises(ExtensionUnavailable) as error:
                migrations.upgrade(url=url)
            if is_in_url:
                printed = re.search(r"options=(\S+);", str(error.value))
                assert printed is not None, error.value
                url = url.update_query_dict({"options": unquote(printed[1])})
            else:
                execute_printed(database, str(error.value), r"ALTER ROLE .*;")
            assert migrations.upgrade(url=url) == HEAD
            drop_owned(database, role)
        finally:
            server.execute(sql.SQL("DROP DATABASE {database} WITH (FORCE)").format(**names))


@pytest.mark.parametrize("schema", ["kpi", "O'Brien\"x", "lateral", *UNPRINTABLE])
def test_version_table_of_another_application_in_named_schema_is_renamed_as_printed(
    database: Database, schema: str
) -> None:
    with database.connect() as connection:
        statements = sql.SQL(
            "CREATE SCHEMA {name}; CREATE TABLE {name}.alembic_version AS SELECT 'ae1027a6'::varchar(32) AS version_num"
        )
        connection.execute(statements.format(name=sql.Identifier(schema)))
    result = run("syntegra-db", "upgrade", "--schema", schema, url=database.environment_url)
    assert result.returncode == 8, result.stderr
    execute_printed(database, result.stderr, r"ALTER TABLE .+ RENAME TO application_version;")
    succeed("syntegra-db", "upgrade", "--schema", schema, url=database.environment_url)
    assert database.query("SELECT version_num FROM public.alembic_version") == [(HEAD,)]


@pytest.mark.parametrize("versions", [["ae1027a6"], ["a1", "b2"], ["2024_05_01"], ["003_add_users"]])
def test_version_table_of_another_application_is_renamed_as_printed(
    empty_database: Database, tmp_path: Path, versions: list[str]
) -> None:
    execute(empty_database, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    with empty_database.connect() as connection:
        connection.cursor().executemany("INSERT INTO alembic_version VALUES (%s)", [(name,) for name in versions])
    works = readers(empty_database.engine, tmp_path)
    if len(versions) == 1:
        assert works.pop("status")() is not None
    for work in works.values():
        with pytest.raises((RevisionError, AdoptionNotPossible), match="another application's migrations") as error:
            work()
        assert "newer" not in str(error.value)
    result = run("syntegra-db", "status", url=empty_database.environment_url)
    assert (result.returncode, "another application's migrations" in result.stderr) == (8, True)
    execute_printed(empty_database, result.stderr, r"ALTER TABLE public.alembic_version RENAME TO application_version;")
    assert migrations.upgrade(url=empty_database.url) == HEAD
    assert empty_database.query("SELECT count(*) FROM application_version") == [(len(versions),)]


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ("ALTER TABLE alembic_version RENAME version_num TO version", "ALTER TABLE .*;"),
        ("ALTER TABLE alembic_version DROP version_num, ADD revision text", "ALTER TABLE .*;"),
        (
            (
                "ALTER TABLE alembic_version DROP CONSTRAINT alembic_version_pkc, ALTER version_num DROP NOT NULL;"
                "INSERT INTO alembic_version VALUES (NULL)"
            ),
            "DELETE FROM .*;",
        ),
    ],
)
def test_unusable_version_table_is_explained_by_all_with_statement_that_works(
    database: Database, tmp_path: Path, change: str, fix: str
) -> None:
    execute(database, change)
    for work in readers(database.engine, tmp_path).values():
        with pytest.raises(RevisionError, match=r"public\.alembic_version has (no column|a row without)") as error:
            work()
    execute_printed(database, str(error.value), fix)
    with connect(database.engine) as connection:
        assert migrations.current_revision(connection) in {None, HEAD}


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE alembic_version DROP CONSTRAINT alembic_version_pkc",
        "ALTER TABLE alembic_version ALTER version_num TYPE char(40)",
        "ALTER TABLE alembic_version ADD applied_at timestamptz NOT NULL DEFAULT now()",
        "ALTER TABLE alembic_version ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE alembic_version SET UNLOGGED",
        "ALTER TABLE alembic_version DROP CONSTRAINT alembic_version_pkc, ALTER version_num DROP NOT NULL",
        "CREATE RULE keep AS ON UPDATE TO alembic_version DO INSTEAD NOTHING",
    ],
)
def test_changed_version_table_is_reported_with_fix_that_works(database: Database, change: str) -> None:
    execute(database, change)
    report = drift_report(database)
    assert all("alembic_version" in finding.object for finding in (*report.findings, *report.notes))
    assert report.findings or report.notes
    execute(database, *(line for finding in report.findings for line in finding.fix.splitlines()))
    assert drift_report(database).findings == []
    assert migrations.downgrade("002", url=database.url) == "002"


def test_other_owner_of_version_table_is_a_note_with_fix_that_works(database: Database, role: str) -> None:
    database.execute(sql.SQL("ALTER TABLE alembic_version OWNER TO {}").format(sql.Identifier(role)))
    (note,) = drift_report(database).notes
    assert note.object == "owner of alembic_version"
    execute(database, note.fix)
    assert drift_report(database).notes == []


@pytest.mark.parametrize(
    "command",
    [
        "syntegra-db upgrade 999",
        "syntegra-db downgrade 999",
        "syntegra-db rollback 999",
        "syntegra-db sql 999",
        "alembic upgrade 999",
        "alembic downgrade ae1027a6",
        "alembic stamp 999",
    ],
)
def test_unknown_revision_lists_the_revisions(database: Database, tmp_path: Path, command: str) -> None:
    cwd = ROOT if command.startswith("alembic") else tmp_path
    result = run(*command.split(), url=database.environment_url, cwd=cwd)
    assert (result.returncode, f"The revisions are {', '.join(REVISIONS)}." in result.stderr) == (8, True), (
        result.stderr
    )


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TYPE trend_status AS ENUM ('emergent', 'stable', 'declining')",
        "CREATE TYPE trend_status AS ENUM ('up', 'down')",
        "CREATE TABLE clusters (id bigserial PRIMARY KEY, client_id bigint NOT NULL, cluster_id integer NOT NULL)",
    ],
)
def test_tables_and_types_of_a_later_revision_are_adopted_as_printed(
    database: Database, tmp_path: Path, statement: str
) -> None:
    migrations.downgrade("002", url=database.url)
    execute(database, statement)
    (finding,) = drift_report(database).findings
    assert "DROP" not in finding.fix
    printed = re.search(r"`(syntegra-db adopt)`", finding.fix)
    assert printed is not None
    result = run(*shlex.split(printed[1]), "--apply", url=database.environment_url, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    succeed("syntegra-db", "upgrade", url=database.environment_url)
    assert drift_report(database).findings == []


# The user of the URL, the name of the database, and whether createdb is on PATH.
MISSING_DATABASES = (
    ("role", "kpi nuevos", True),
    ("role", "$HOME `a`", False),
    ("role that may create databases", "-kpi", True),
    ("role that may create databases", "O'Brien\"x", False),
    ("administrator", "host=a", True),
    ("administrator", "ñandú", False),
)


@pytest.mark.parametrize("case", MISSING_DATABASES)
def test_missing_database_is_created_as_printed(
    server: Server, role: str, case: tuple[str, str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, name, has_createdb = case
    administrator_url = server.url.set(database=name)
    if administrator_url.port is None:
        administrator_url = administrator_url.update_query_dict({"port": "5432"})
    url, password, owner = administrator_url, server.url.password, server.url.username
    if kind != "administrator":
        url, owner = url.set(username=role, password=ROLE_PASSWORD), role
    if kind == "role that may create databases":
        server.execute(sql.SQL("ALTER ROLE {} CREATEDB").format(sql.Identifier(role)))
        password = ROLE_PASSWORD
    directories = [find_program("psql").parent, *os.get_exec_path()]
    if not has_createdb:
        (tmp_path / "sh").symlink_to("/bin/sh")
        directories = [tmp_path, PROGRAMS]
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, directories)))
    with pytest.raises(DatabaseNotFound) as error, connect(unpooled_engine(url)):
        pass
    command = re.search(rf"`({'createdb' if has_createdb else 'syntegra-db psql'} .*)`\)", str(error.value))
    assert command is not None, error.value
    environment = {
        "PATH": os.environ["PATH"],
        # What leads elsewhere unless the command names it.
        "PGUSER": "elsewhere",
        "PGPORT": "1",
        "PGPASSWORD": password or "",
        "DATABASE_URL": url.render_as_string(hide_password=False),
    }
    try:
        subprocess.run(
            ["sh", "-c", command[1]],
            env=environment,
            input=f"{password}\n",
            text=True,
            # Without a terminal, psql reads the password from standard input.
            start_new_session=True,
            check=True,
        )
        with connect(unpooled_engine(administrator_url)) as connection:
            query = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
            assert connection.exec_driver_sql(query).scalar_one() == owner
    finally:
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


@pytest.mark.parametrize("role", ONE_LINE_NAMES, indirect=True)
def test_missing_database_of_service_file_is_created_as_printed(
    server: Server, role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = server.url.host or server.url.query["host"], server.url.port or 5432
    service = f"[kpi]\nhost={host}\nport={port}\nuser={role}\npassword={ROLE_PASSWORD}\ndbname=kpi nuevos\n"
    (tmp_path / "services").write_text(service, encoding="utf-8")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("PATH", f"{find_program('psql').parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(DatabaseNotFound) as error, connect(unpooled_engine(parse_url("postgresql:///?service=kpi"))):
        pass
    command = re.search(r"`(createdb .*)`\)", str(error.value))
    assert command is not None, error.value
    environment = {"PATH": os.environ["PATH"], "PGPASSWORD": server.url.password or ""}
    try:
        subprocess.run(["sh", "-c", command[1]], env=environment, check=True)
        with connect(unpooled_engine(server.url.set(database="kpi nuevos"))) as connection:
            query = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
            assert connection.exec_driver_sql(query).scalar_one() == role
    finally:
        server.execute("""DROP DATABASE IF EXISTS "kpi nuevos\"""")


@pytest.mark.parametrize("name", ["Índice 1", "O'Brien\"x", "lateral"])
def test_invalid_index_is_rebuilt_as_printed(database: Database, name: str) -> None:
    with database.connect() as connection:
        connection.execute(sql.SQL("CREATE INDEX {} ON clusters (client_id)").format(sql.Identifier(name)))
        invalidate = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = (SELECT max(oid) FROM pg_class)"
        connection.execute(invalidate)
    output = succeed("syntegra-db", "status", url=database.environment_url)
    execute_printed(database, output, r"REINDEX INDEX CONCURRENTLY [^;]*;")
    assert "Invalid index" not in succeed("syntegra-db", "status", url=database.environment_url)


def test_holder_of_the_migration_lock_is_ended_as_printed(database: Database) -> None:
    with database.connect() as holder, connect(database.engine) as connection:
        holder.execute("SELECT pg_advisory_lock(7)")
        with pytest.raises(LockTimeout) as error:
            acquire_session_lock(connection, 7, 0, holder_task="migration")
        execute_printed(database, str(error.value), r"SELECT pg_terminate_backend\(\d+\);")
        acquire_session_lock(connection, 7, 5, holder_task="migration")


def test_role_that_cannot_create_an_index_gets_grant_that_works(database: Database, role: str) -> None:
    name = sql.Identifier(role)
    database.execute(
        sql.SQL("GRANT SELECT ON alembic_version TO {0}; ALTER TABLE text_summary OWNER TO {0}").format(name)
    )
    engine = unpooled_engine(database.url_as(role))
    with pytest.raises(RebuildFailed) as error:
        rebuild(engine)
    execute_printed(database, str(error.value), r"GRANT CREATE .*;")
    with pytest.raises(RebuildFailed) as error:
        rebuild(engine)
    assert "GRANT" not in str(error.value)
    drop_owned(database, role)


def test_role_that_cannot_adopt_gets_grant_that_works(empty_database: Database, role: str) -> None:
    create_legacy_database(empty_database, "other_names")
    engine = unpooled_engine(empty_database.url_as(role))
    with pytest.raises(AdoptionNotPossible) as error:
        in_connection(engine, adoption.plan)
    execute_printed(empty_database, str(error.value), r"GRANT CREATE [^;]*")
    with pytest.raises(AdoptionNotPossible) as error:
        in_connection(engine, adoption.plan)
    assert "cannot create objects" not in str(error.value)
    drop_owned(empty_database, role)


@pytest.mark.parametrize(
    "statement",
    [
        'CREATE TABLE "Hija ñ" () INHERITS (clusters)',
        "CREATE TABLE mother (id bigint); ALTER TABLE clusters INHERIT mother",
    ],
)
def test_inheritance_that_prevents_adoption_is_removed_as_printed(empty_database: Database, statement: str) -> None:
    create_legacy_database(empty_database, "other_names")
    execute(empty_database, *statement.split("; "))
    with pytest.raises(AdoptionNotPossible) as error:
        in_connection(empty_database.engine, adoption.plan)
    execute_printed(empty_database, str(error.value), r"ALTER TABLE \S.* NO INHERIT [^.]*")
    assert in_connection(empty_database.engine, adoption.plan) is not None


@pytest.mark.parametrize("table", ["clusters", "kpi_summary"])
def test_sequence_that_a_restore_rejects_is_set_as_printed(database: Database, tmp_path: Path, table: str) -> None:
    execute(database, f"ALTER SEQUENCE {table}_id_seq MINVALUE -5; SELECT setval('{table}_id_seq', -1)")
    with pytest.raises(BackupFailed) as error:
        backup.create_backup(database.engine, tmp_path / "rows.dump")
    execute_printed(database, str(error.value), r"SELECT setval.*;")
    assert backup.create_backup(database.engine, tmp_path / "rows.dump").metadata.revision == HEAD


@pytest.mark.parametrize("schema", ["Más ext", "O'Brien\"x"])
def test_extension_outside_search_path_of_psql_is_added_as_printed(empty_database: Database, schema: str) -> None:
    migrations.upgrade("002", url=empty_database.url)
    empty_database.execute(
        sql.SQL("CREATE SCHEMA {0}; CREATE EXTENSION vector SCHEMA {0}").format(sql.Identifier(schema))
    )
    script = migrations.render_sql_script("003").text
    command = [str(find_program("psql")), "-X", conninfo(empty_database.url)]
    result = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert result.returncode == 3, result.stderr
    execute_printed(empty_database, result.stderr, r"ALTER ROLE .*?;")
    subprocess.run(command, input=script, capture_output=True, text=True, check=True)
    assert drift_report(empty_database).findings == []
