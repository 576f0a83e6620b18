"""Every command meets every fault: nothing acknowledged is lost, and what the command reports is true.

`make faults` prints the outcomes as a table.
"""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from support.faults import (
    FAULTS,
    OTHER_SESSIONS,
    SETTINGS,
    SHORT_LIMITS,
    Fault,
    State,
    Target,
    child_processes,
    read_state,
    small_disk,
)
from support.legacy_databases import create_legacy_database
from support.processes import running, wait_until
from support.revisions import REVISIONS
from support.sample_rows import load_rows
from support.servers import Database, embedded_server
from support.tcp_proxy import tcp_proxy
from syntegra_db import migrations
from syntegra_db.backup import create_backup, read_metadata, verify_backup
from syntegra_db.catalog import load_manifest, verify
from syntegra_db.connections import connect
from syntegra_db.testing._options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.servers import EmbeddedServer

pytestmark = pytest.mark.embedded

ROWS = 300
LOADED_ROWS = 200
LOAD = """
from syntegra_db.bulk import copy_rows, upsert_rows
from syntegra_db.database import create_engine, session_factory
from syntegra_db.models import Cluster
rows = [{{"client_id": 10**6 + n, "cluster_id": n, "features_json": {{}}}} for n in range({rows})]
with session_factory(create_engine())() as session:
    {call}
    session.commit()
"""
UNCHANGED = re.compile(r"[Nn]othing was changed|No row was|(is|are) unchanged|was not rolled back|not restored")
DONE = re.compile(r"(was|were) committed|rows? (is|are|were) restored|The adoption is complete")
REVISION = re.compile(r"at (?:revision (?P<revision>\d{3})|no revision)")


@dataclass(frozen=True)
class Command:
    """A command that meets a fault when it sends the statement that `mark` finds.

    `outcomes` returns the possible states after a commit, from the states before it and of the backup.
    """

    name: str
    arguments: tuple[str, ...]
    mark: bytes
    outcomes: Callable[[State, State], list[State]] | None = None
    database: str = "rows"
    has_same_values: bool = True

    def __str__(self) -> str:
        return self.name


def upgraded(*_: State) -> list[State]:
    """Each revision is committed on its own."""
    return [State(revision, dict.fromkeys(load_manifest(revision).tables, (0, None))) for revision in REVISIONS]


def downgraded(before: State, _: State) -> list[State]:
    return [State("002", {name: before.tables[name] for name in load_manifest("002").tables})]


def restored(_: State, backup: State) -> list[State]:
    return [backup]


def adopted(before: State, _: State) -> list[State]:
    return [State("003", before.tables)]


def loaded(before: State, _: State) -> list[State]:
    rows, checksum = before.tables["clusters"]
    return [State(before.revision, {**before.tables, "clusters": (rows + LOADED_ROWS, checksum)})]


def load(call: str) -> tuple[str, ...]:
    return ("python", "-c", LOAD.format(rows=LOADED_ROWS, call=call))


COMMANDS = [
    Command("upgrade", ("syntegra-db", "upgrade"), rb"CREATE TABLE trend_signals", upgraded, "empty"),
    Command("downgrade 002", ("syntegra-db", "downgrade", "002"), rb"DROP TABLE", downgraded),
    Command("backup", ("syntegra-db", "backup"), rb"COPY \S*clusters"),
    Command("restore", ("syntegra-db", "restore", "--replace", "FILE"), rb"COPY \S*clusters", restored),
    Command("rollback 002", ("syntegra-db", "rollback", "002"), rb"DROP TABLE", downgraded),
    Command(
        "adopt --apply", ("syntegra-db", "adopt", "--apply"), rb"ALTER TABLE", adopted, "legacy", has_same_values=False
    ),
    Command("vectors rebuild", ("syntegra-db", "vectors", "rebuild"), rb"CREATE INDEX CONCURRENTLY"),
    Command("vectors status", ("syntegra-db", "vectors", "status", "--seconds", "1"), rb"<=>"),
    Command("verify", ("syntegra-db", "verify"), rb"pg_constraint"),
    Command("status", ("syntegra-db", "status"), rb"pg_total_relation_size"),
    Command("copy_rows", load("copy_rows(session, Cluster, rows)"), rb"COPY", loaded, has_same_values=False),
    Command(
        "upsert_rows",
        load('upsert_rows(session, Cluster, rows, key=("client_id",))'),
        rb"INSERT INTO|MERGE INTO",
        loaded,
        has_same_values=False,
    ),
]


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    with small_disk() as disk:
        yield disk


@pytest.fixture(scope="module")
def stoppable(pytestconfig: pytest.Config, disk: Path) -> Iterator[EmbeddedServer]:
    with embedded_server(pytestconfig.stash[OPTIONS].postgres, disk) as server:
        for setting in SETTINGS:
            server.execute(f"ALTER SYSTEM SET {setting}")
        server.stop_immediately()
        server.start()
        yield server


@dataclass(frozen=True)
class Site:
    """A server that faults hit, on a separate disk, with a template database and its backup.

    `startup` has a module that every Python program imports when it starts.
    """

    server: EmbeddedServer
    disk: Path
    startup: Path
    template: str
    backup: Path
    state: State


@pytest.fixture(scope="module")
def site(stoppable: EmbeddedServer, disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    name, startup = "syntegra_test_rows", tmp_path_factory.mktemp("startup")
    (startup / "sitecustomize.py").write_text(SHORT_LIMITS, encoding="utf-8")
    with stoppable.database(name=name) as database:
        migrations.upgrade(url=database.url)
        load_rows(database, ROWS)
        state = read_state(database, with_values=True)
        yield Site(stoppable, disk, startup, name, create_backup(database.engine, disk / "rows.dump").path, state)


@contextmanager
def database_for(command: Command, site: Site) -> Iterator[Database]:
    with site.server.database(site.template if command.database == "rows" else "template0") as database:
        # The copied sequences claim values that the write-ahead log of the copy does not have until a checkpoint.
        database.execute("CHECKPOINT")
        if command.database == "legacy":
            create_legacy_database(database, "serial_ids")
        elif command.database == "rows":
            database.execute("INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (1, 1, '{}')")
        yield database


@pytest.mark.each("fault")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_command_with_fault_keeps_rows_and_reports_the_truth(
    site: Site, tmp_path: Path, command: Command, fault: Fault, record_property: Callable[[str, object], None]
) -> None:
    arguments = [str(site.backup) if argument == "FILE" else argument for argument in command.arguments]
    directory = site.disk / tmp_path.name
    directory.mkdir()
    with database_for(command, site) as database:
        before = read_state(database, with_values=command.has_same_values)
        states = [before, *(command.outcomes(before, site.state) if command.outcomes else [])]
        with tcp_proxy(database.url) as proxy:
            proxy.hold(command.mark)
            with running(Database(proxy.url), *arguments, cwd=directory, PYTHONPATH=str(site.startup)) as process:
                target = Target(site.server, site.disk, database, proxy, process, commits=len(states) > 1)
                started = time.monotonic()
                messages = meet(target, fault)
                seconds = time.monotonic() - started
        after = read_state(database, with_values=command.has_same_values)
        change = "unchanged" if after == before else "committed" if after == states[-1] else f"at {after.revision}"
        outcome = f"{change}, {process.returncode}, {seconds:.1f} s"
        record_property("fault", (COMMANDS.index(command), command.name, FAULTS.index(fault), fault.name, outcome))
        assert after in states, messages
        assert process.returncode in (fault.statuses or range(128)), messages
        # The program that loads rows catches no exception.
        assert "Traceback" not in messages or command.arguments[0] == "python", messages
        check_report(process.returncode, messages, states, after)
        for path in directory.rglob("*.dump"):
            verify_backup(read_metadata(path))
        with running(database, *arguments, cwd=directory) as again:
            _, errors = again.communicate(timeout=60)
        assert again.returncode == 0 or "there is nothing to roll back" in errors, errors
        with connect(database.engine) as connection:
            assert verify(connection).findings == []


def meet(target: Target, fault: Fault) -> str:
    """Inject `fault` at the mark, wait until the command and all that it started have ended, and return its errors."""
    process, proxy = target.process, target.proxy
    wait_until(lambda: proxy.held.is_set() or process.poll() is not None)
    assert process.poll() is None, process.communicate()[1]
    children = child_processes(process.pid)
    fault.inject(target)
    proxy.release()
    try:
        _, errors = process.communicate(timeout=fault.seconds)
    finally:
        fault.recover(target)
    wait_until(lambda: not any(child.exists() for child in children), 10)
    wait_until(lambda: not target.database.query(OTHER_SESSIONS), 10)
    return errors


def check_report(status: int, messages: str, states: list[State], after: State) -> None:
    """Check that the last message reports the state `after`, one of `states`, the first of which was before."""
    message = messages.splitlines()[-1] if messages else ""
    if "it is unknown whether" in message:
        return
    if status == 0:
        assert after == states[-1]
    elif after != states[0]:
        assert not UNCHANGED.search(message), message
    elif len(states) > 1:
        assert not DONE.search(message), message
    if reported := REVISION.search(message):
        assert reported["revision"] == after.revision, message
