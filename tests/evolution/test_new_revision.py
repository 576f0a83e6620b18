"""A revision after the released ones: before and after its manifest is written, and with a bug."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.revisions import AFTER_HEAD, HEAD, revision_of
from support.texts import load_texts
from syntegra_db.catalog import load_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from support.checkouts import Checkout
    from support.servers import Database

COLUMNS = {
    "nullable": 'op.add_column("data_sources", sa.Column("note", sa.Text()))',
    "NOT NULL": 'op.add_column("data_sources", sa.Column("note", sa.Text(), server_default="", nullable=False))',
    "ENUM": """
        op.execute("CREATE TYPE note_kind AS ENUM ('short', 'long')")
        op.execute("ALTER TABLE data_sources ADD note note_kind")
    """,
    "table": 'op.execute("CREATE TABLE notes (id bigserial PRIMARY KEY, note text)")',
}
DROPS = {
    "ENUM": 'op.drop_column("data_sources", "note")\nop.execute("DROP TYPE note_kind")',
    "table": 'op.drop_table("notes")',
}
DROP_COLUMN = 'op.drop_column("data_sources", "note")'
BUGS = {
    "KeyError": '{}["client@example.com"]',
    "AttributeError": "op.create_tables()",
    "NotImplementedError": "raise NotImplementedError",
    "TypeError": 'op.add_column("data_sources")',
}


@pytest.mark.long
@pytest.mark.parametrize("kind", COLUMNS)
def test_manifests_with_new_revision_are_written_and_used(checkout: Checkout, database: Database, kind: str) -> None:
    checkout.add_revision(AFTER_HEAD, COLUMNS[kind], DROPS.get(kind, DROP_COLUMN))
    before = {path.name: path.read_text(encoding="utf-8") for path in checkout.manifests.iterdir()}
    written = checkout.run("syntegra-db", "manifests")
    assert written.returncode == 0, written.stderr
    after = {path.name: path.read_text(encoding="utf-8") for path in checkout.manifests.iterdir()}
    assert after.keys() - before.keys() == {f"{AFTER_HEAD}.json"}
    assert before.items() <= after.items()
    assert '"note": {"type": ' in after[f"{AFTER_HEAD}.json"]
    for command in ("upgrade", "verify", "status", "backup"):
        result = checkout.run("syntegra-db", command, database=database)
        assert result.returncode == 0, (command, result.stderr)
    for arguments in (("downgrade", "-1"), ("upgrade", "head"), ("downgrade", HEAD)):
        result = checkout.run("alembic", *arguments, database=database)
        assert result.returncode == 0, (arguments, result.stderr)
    assert revision_of(database) == HEAD


@pytest.mark.parametrize(
    ("command", "status"), [("verify", 2), ("backup", 8), ("rollback 002", 8), ("downgrade 002", 8)]
)
def test_missing_manifest_is_named_with_command_that_writes_it(
    checkout: Checkout, database: Database, command: str, status: int
) -> None:
    checkout.add_revision(AFTER_HEAD, COLUMNS["nullable"], DROP_COLUMN)
    database.execute(f"ALTER TABLE data_sources ADD note text; UPDATE alembic_version SET version_num = '{AFTER_HEAD}'")
    result = checkout.run("syntegra-db", *command.split(), database=database)
    assert (result.returncode, result.stderr.count("\n")) == (status, 1), result.stderr
    assert f"Revision {AFTER_HEAD} has no manifest" in result.stderr
    assert result.stderr.endswith("Write it: make generate\n")
    assert checkout.run("syntegra-db", "status", database=database).returncode == 0
    assert revision_of(database) == AFTER_HEAD


@pytest.mark.parametrize("program", ["syntegra-db", "alembic"])
def test_upgrade_without_manifest_changes_nothing(checkout: Checkout, database: Database, program: str) -> None:
    checkout.add_revision(AFTER_HEAD, COLUMNS["nullable"], DROP_COLUMN)
    result = checkout.run(program, "upgrade", "head", database=database)
    assert result.returncode == 8, result.stderr
    assert "Traceback" not in result.stderr
    assert f"Revision {AFTER_HEAD} has no manifest" in result.stderr
    assert revision_of(database) == HEAD


@pytest.mark.parametrize("program", ["syntegra-db", "alembic"])
@pytest.mark.parametrize("bug", BUGS)
def test_bug_in_upgrade_is_placed_and_the_revision_reported(
    checkout: Checkout, empty_database: Database, bug: str, program: str
) -> None:
    path = checkout.add_revision(AFTER_HEAD, f"{COLUMNS['nullable']}\n{BUGS[bug]}")
    (checkout.manifests / f"{AFTER_HEAD}.json").write_text('{"types": {}, "tables": {}}', encoding="utf-8")
    result = checkout.run(program, "upgrade", "head", database=empty_database)
    assert result.returncode == 11, result.stderr
    assert "Traceback" not in result.stderr
    state = f"The database is at revision {HEAD}, and nothing else was changed."
    assert f"{bug} in {path}, line {line_of(path, BUGS[bug])}: {state}" in result.stderr
    assert "client@example.com" not in result.stderr
    assert revision_of(empty_database) == HEAD
    assert load_manifest(HEAD).tables["data_sources"].columns.keys() == columns_of(empty_database)


@pytest.mark.long
def test_bug_in_downgrade_is_placed_by_rollback_and_keeps_the_rows(checkout: Checkout, database: Database) -> None:
    load_texts(database, 10, {})
    path = checkout.add_revision(AFTER_HEAD, COLUMNS["nullable"], f"{DROP_COLUMN}\n{BUGS['KeyError']}")
    assert checkout.run("syntegra-db", "manifests").returncode == 0
    assert checkout.run("syntegra-db", "upgrade", database=database).returncode == 0
    for command in ("downgrade", "rollback"):
        result = checkout.run("syntegra-db", command, "002", database=database)
        assert result.returncode == 11, result.stderr
        assert "Traceback" not in result.stderr
        assert f"KeyError in {path}, line {line_of(path, BUGS['KeyError'])}: " in result.stderr
        assert revision_of(database) == AFTER_HEAD
    assert database.query("SELECT count(*) FROM text_summary") == [(10,)]


def line_of(path: Path, statement: str) -> int:
    """Return the number of the last line with `statement`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return max(number for number, line in enumerate(lines, 1) if statement in line)


def columns_of(database: Database) -> set[str]:
    rows = database.query("SELECT column_name::text FROM information_schema.columns WHERE table_name = 'data_sources'")
    return {row[0] for row in rows}
