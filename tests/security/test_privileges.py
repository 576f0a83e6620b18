"""Each command runs as a role with the privileges that SECURITY.md lists, and fails without any one of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from support.commands import ROOT
from support.forked_processes import ForkedProcess, syntegra_db
from support.legacy_databases import create_legacy_database
from support.privileges import PARTITION_COMMANDS, READ, ROLE, grant, revoke_defaults
from support.sample_rows import load_rows
from support.servers import Database
from syntegra_db.backup import create_backup
from syntegra_db.bulk import copy_rows, upsert_rows
from syntegra_db.database import create_engine, session_factory
from syntegra_db.migrations import require_head
from syntegra_db.models import TextSummary
from syntegra_db.vectors import search

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.orm import Session

    from support.servers import Server

pytestmark = pytest.mark.slow

TEMPLATE = "syntegra_test_privileges_template"
ROW = {"client_id": 999, "text_field": "a"}


@dataclass(frozen=True)
class Operation:
    """A command, or a function of services, with its privileges on a database.

    The database has rows, is empty, or has tables created outside migrations.
    """

    name: str
    main: Callable[[list[str]], object]
    arguments: tuple[str, ...]
    privileges: tuple[str, ...]
    database: str = "head"

    def __str__(self) -> str:
        return self.name


def command(arguments: str, *privileges: str, database: str = "head") -> Operation:
    return Operation(f"`syntegra-db {arguments}`", syntegra_db, tuple(arguments.split()), privileges, database)


def service(name: str, *privileges: str) -> Operation:
    return Operation(f"`{name}`", call_service, (name,), privileges)


def call_service(arguments: list[str]) -> None:
    """Call a function as a service does."""
    calls: dict[str, Callable[[Session], object]] = {
        "require_head": lambda session: require_head(session.connection()),
        "search": lambda session: search(session, [1.0] * 384),
        "copy_rows": lambda session: copy_rows(session, TextSummary, [ROW]),
        "upsert_rows": lambda session: upsert_rows(session, TextSummary, [ROW], key=("client_id",)),
    }
    with session_factory(create_engine())() as session:
        calls[arguments[0]](session)
        session.commit()


CREATE = ("CONNECT", "USAGE of the schema", "CREATE in the schema")
OWN = ("CONNECT", "USAGE of the schema", "owner of the tables", "owner of `alembic_version`")
OPERATIONS = [
    command("status", *READ),
    command("verify", *READ),
    command("upgrade", *CREATE, database="empty"),
    command("downgrade 002", *OWN, "owner of the ENUM types"),
    command("backup", *READ, "SELECT of the tables", "SELECT of the sequences"),
    command("restore FILE", *CREATE, database="empty"),
    command("restore --replace FILE", *OWN, "CREATE in the schema"),
    command("rollback 002", *OWN, "owner of the ENUM types"),
    *(
        command(arguments, *CREATE, "owner of the tables", database="legacy")
        for arguments in ("adopt", "adopt --apply")
    ),
    command("vectors status", *READ, "SELECT of the table"),
    command("vectors rebuild", *READ, "CREATE in the schema", "owner of `text_summary`"),
    command("psql", "CONNECT"),
    service("require_head", *READ),
    service("search", "CONNECT", "USAGE of the schema", "SELECT of the table"),
    service(
        "copy_rows",
        "CONNECT",
        "USAGE of the schema",
        "INSERT of the table",
        "USAGE of its sequence",
    ),
    service(
        "upsert_rows",
        "CONNECT",
        "TEMPORARY",
        "USAGE of the schema",
        "SELECT of the table",
        "INSERT of the table",
        "UPDATE of the table",
        "USAGE of its sequence",
    ),
]


@pytest.fixture(scope="module")
def template(server: Server, migrated_template: str) -> Iterator[str]:
    with server.database(migrated_template, name=TEMPLATE) as database:
        load_rows(database, 300)
        yield TEMPLATE


@pytest.fixture(scope="module")
def backup_file(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backup") / "rows.dump"
    create_backup(Database(server.url.set(database=template)).engine, path)
    return path


@pytest.fixture
def run_with(server: Server, template: str, backup_file: Path, tmp_path: Path) -> Runner:
    def execute(operation: Operation, privileges: tuple[str, ...]) -> tuple[int | None, str]:
        source = template if operation.database == "head" else "template0"
        with server.role(ROLE), server.database(source) as database:
            prepare(database, operation.database)
            for privilege in privileges:
                database.execute(grant(database, privilege))
            arguments = [str(backup_file) if argument == "FILE" else argument for argument in operation.arguments]
            url = database.url_as(ROLE).render_as_string(hide_password=False)
            process = ForkedProcess(operation.main, url, tmp_path / "output", *arguments).start()
            return process.wait(), process.output_text

    return execute


Runner = Callable[[Operation, tuple[str, ...]], tuple[int | None, str]]


def prepare(database: Database, kind: str) -> None:
    """Create what `kind` of database has, and take from every role what PostgreSQL gives to all of them."""
    if kind == "empty":
        database.execute("CREATE EXTENSION vector")
    if kind == "legacy":
        create_legacy_database(database, "serial_ids")
    revoke_defaults(database)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_operation_with_its_privileges_succeeds(run_with: Runner, operation: Operation) -> None:
    status, output = run_with(operation, operation.privileges)
    assert status == 0, output


@pytest.mark.parametrize(
    ("operation", "missing"),
    [(operation, missing) for operation in OPERATIONS for missing in operation.privileges],
    ids=str,
)
def test_operation_without_one_privilege_fails_with_one_message(
    run_with: Runner, operation: Operation, missing: str
) -> None:
    status, output = run_with(operation, tuple(name for name in operation.privileges if name != missing))
    assert status is not None
    assert status > 0, output
    if operation.main is syntegra_db:
        assert re.search(r"^(Error|psql: error): ", output, re.MULTILINE), output
        assert "Traceback" not in output


def test_security_page_lists_the_tested_privileges() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| (`[^|]+`) \| (CONNECT[^|]*) \|$", page, re.MULTILINE))
    tested = {operation.name: operation.privileges for operation in OPERATIONS}
    tested |= {f"`syntegra-db {arguments}`": privileges for arguments, privileges in PARTITION_COMMANDS.items()}
    assert listed == {name: ", ".join(privileges) for name, privileges in tested.items()}
