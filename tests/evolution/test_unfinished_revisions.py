"""Unfinished revisions: `make revisions` reports all that is missing, and `make generate` names the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alembic.operations.ops import AddColumnOp
from sqlalchemy import Column, Text

from support.checkouts import Checkout
from support.linted_revisions import PARTS, write_revisions
from support.revisions import AFTER_HEAD, HEAD, revision_of
from syntegra_db.catalog import Schema
from syntegra_db.migrations.authoring._docstring import outdated_headings
from syntegra_db.migrations.online import CollectedSteps, TransactionStep

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database, Server
    from syntegra_db.migrations.online import Step

SECOND = f"{int(HEAD) + 2:03}"
COLUMN = 'op.add_column("kpi_summary", sa.Column("unit", sa.String(10)))'
DROP_COLUMN = 'op.drop_column("kpi_summary", "unit")'
INDEX = 'op.create_index_online("idx_clusters_x", "clusters", ["centroid"])'
DROP_INDEX = 'op.drop_index_online("idx_clusters_x", "clusters")'
NO_MANIFEST = "it has no manifest yet. When the rest is corrected, write it: make generate"
PLACEHOLDER = """
op.add_column("kpi_summary", sa.Column("unit", sa.String(10)))
op.backfill("kpi_summary", {"unit": "…"}, "unit IS NULL")
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout", *PARTS)


def test_missing_manifests_are_reported_with_everything_else(checkout: Checkout) -> None:
    revisions = write_revisions(
        checkout,
        {
            "first": (f"{COLUMN}\nop.create_index('idx_x', 'clusters', ['centroid'])", "pass", None),
            "second": ("pass", "op.alter_column('kpi_summary', 'kpi_name', nullable=False)", "expand"),
        },
    )
    for revision in revisions.values():
        (checkout.manifests / f"{revision}.json").unlink()
    result = checkout.run("tools.revision_lint")
    assert (result.returncode, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    for name, reported in (
        ("first", NO_MANIFEST),
        ("first", "phase is missing."),
        ("first", "Use op.create_index_online."),
        ("first", "downgrade does nothing."),
        ("second", NO_MANIFEST),
        ("second", "upgrade: it does nothing."),
        ("second", "Use op.set_not_null_online."),
    ):
        assert [line for line in lines if f"/{revisions[name]}_" in line and reported in line], (reported, lines)


@pytest.mark.parametrize(
    ("body", "error"), [("raise NotImplementedError", "NotImplementedError"), ("op.create_tables()", "AttributeError")]
)
def test_revision_that_cannot_be_read_is_reported_after_those_before_it(
    checkout: Checkout, body: str, error: str
) -> None:
    write_revisions(checkout, {"first": (COLUMN, "pass", "expand"), "second": (body, "pass", "expand")})
    result = checkout.run("tools.revision_lint")
    assert (result.returncode, result.stderr) == (1, "")
    first, second = result.stdout.splitlines()
    assert f"/{AFTER_HEAD}_sample.py: downgrade does nothing." in first
    assert f"/{SECOND}_sample.py: {error} in " in second
    assert second.endswith(": Its operations are not known. Correct the revision and run this again.")


@pytest.mark.parametrize(
    ("upgrade", "expected"),
    [
        (
            f"{COLUMN}\n{INDEX}",
            [
                "does not name SHARE UPDATE EXCLUSIVE on clusters under 'Locks'. Write:\nLocks: ACCESS EXCLUSIVE on",
                "under 'Duration', whose rows are read. Write:\nDuration: grows with the rows of clusters (its",
                "was true before its operations changed. Write:\nIf it fails: the finished steps are kept and",
            ],
        ),
        (
            f"{COLUMN}\nop.backfill('kpi_summary', {{'unit': \"'EUR'\"}})",
            [
                "does not name ROW EXCLUSIVE on kpi_summary under 'Locks'.",
                "does not name kpi_summary under 'Duration'",
                "Write:\nIf it fails: the finished steps are kept and",
            ],
        ),
        (
            f"{COLUMN}\nop.execute('ALTER TABLE clusters SET (fillfactor = 90)')",
            ["does not name ACCESS EXCLUSIVE on clusters under 'Locks'."],
        ),
        (f"{COLUMN}\nop.execute('ALTER TABLE kpi_summary SET (fillfactor = 90)')", []),
        (COLUMN, []),
    ],
)
def test_docstring_that_the_operations_contradict_is_reported(
    checkout: Checkout, upgrade: str, expected: list[str]
) -> None:
    write_revisions(checkout, {"sample": (upgrade, f"{DROP_INDEX}\n{DROP_COLUMN}", "expand")})
    path = checkout.folder / f"alembic/versions/{AFTER_HEAD}_sample.py"
    start, _, rest = path.read_text(encoding="utf-8").partition("Locks:")
    rest = rest.partition("Downgrade:")[2]
    written = (
        "Locks: ACCESS EXCLUSIVE on kpi_summary for a moment.\nDuration: short, for every size of the tables.\n"
        f"If it fails: it is rolled back, and the database stays at {HEAD}; correct the cause and run `syntegra-db\n"
        "upgrade` again.\nDowngrade:"
    )
    path.write_text(start + written + rest, encoding="utf-8")
    report = checkout.succeed("tools.revision_lint", status=bool(expected))
    _, *remarks = report.split(f"/{path.name}: ")
    # Each is pasted into the docstring, whose lines ruff limits.
    assert all(len(line) <= 120 for line in report.splitlines() if path.name not in line)
    assert len(remarks) == len(expected), remarks
    for remark, text in zip(remarks, expected, strict=True):
        assert text in remark


@pytest.mark.parametrize(
    ("upgrade", "downgrade", "message"),
    [
        (
            PLACEHOLDER,
            DROP_COLUMN,
            "backfill kpi_summary.unit has no value yet. Write its SQL expression instead of …; ",
        ),
        (
            COLUMN.replace("unit", "kpi_name"),
            "pass",
            'its upgrade fails: column "kpi_name" of relation "kpi_summary" already exists. Correct it, and run this',
        ),
        (
            f"{COLUMN}\nop.backfill('kpi_summary', {{'unit': 'no_column'}})",
            DROP_COLUMN,
            'its upgrade fails: column "no_column" does not exist. Correct it, and run this again.',
        ),
    ],
)
def test_manifests_of_unfinished_revision_name_the_file(
    checkout: Checkout, upgrade: str, downgrade: str, message: str
) -> None:
    checkout.add_revision(AFTER_HEAD, upgrade, downgrade)
    result = checkout.run("syntegra-db", "manifests")
    assert (result.returncode, result.stderr.count("\n")) == (8, 1), result.stderr
    assert result.stderr.startswith(f"Error: alembic/versions/{AFTER_HEAD}_sample.py: {message}")
    assert not (checkout.manifests / f"{AFTER_HEAD}.json").exists()


def test_file_of_unfinished_downgrade_names_the_file(checkout: Checkout, server: Server) -> None:
    checkout.add_revision(AFTER_HEAD, 'op.drop_column("kpi_summary", "kpi_name")', PLACEHOLDER, phase="contract")
    checkout.write_manifests(server)
    result = checkout.run("syntegra-db", "sql", "--write", ".")
    assert (result.returncode, result.stderr.count("\n")) == (8, 1), result.stderr
    message = "backfill kpi_summary.unit has no value yet. Write its SQL expression instead of …; "
    assert result.stderr.startswith(f"Error: alembic/versions/{AFTER_HEAD}_sample.py: {message}")


@pytest.mark.parametrize("direction", ["upgrade", "downgrade"])
def test_migration_rejects_a_value_that_is_not_written(
    checkout: Checkout, server: Server, database: Database, direction: str
) -> None:
    backfill = """op.backfill("kpi_summary", {"unit": "'EUR'"}, "unit IS NULL")"""
    path = checkout.add_revision(AFTER_HEAD, f"{COLUMN}\n{backfill}", f"{backfill}\n{DROP_COLUMN}", phase="expand")
    checkout.write_manifests(server)
    text = path.read_text(encoding="utf-8")
    if direction == "downgrade":
        checkout.succeed("syntegra-db", "upgrade", database=database)
    start, end = text.split("def downgrade")
    changed = {"upgrade": start.replace("'EUR'", "…"), "downgrade": end.replace("'EUR'", "…")}
    path.write_text(
        "def downgrade".join(({"upgrade": start, "downgrade": end} | {direction: changed[direction]}).values())
    )
    result = checkout.run("syntegra-db", direction, HEAD if direction == "downgrade" else "head", database=database)
    assert result.returncode == 8, result.stderr
    message = f"Error: alembic/versions/{AFTER_HEAD}_sample.py: backfill kpi_summary.unit has no value yet. Write its"
    assert result.stderr.splitlines()[-1].startswith(message)
    assert revision_of(database) == (AFTER_HEAD if direction == "downgrade" else HEAD)
    columns = "SELECT attname FROM pg_attribute WHERE attrelid = 'kpi_summary'::regclass AND attname = 'unit'"
    assert len(database.query(columns)) == (direction == "downgrade")


@pytest.mark.parametrize(("named", "is_accepted"), [("a+b", True), ("aab", False), ("xa+b", False), ("a+bc", False)])
def test_docstring_is_searched_for_the_name_of_a_table_as_it_is(named: str, *, is_accepted: bool) -> None:
    steps: list[Step] = [TransactionStep((AddColumnOp("a+b", Column("unit", Text())),), "add column")]
    headings = {"Locks": f"ACCESS EXCLUSIVE on {named} for a moment."}
    upgrade, downgrade = CollectedSteps(steps, False, []), CollectedSteps([], False, [])
    assert (not list(outdated_headings(headings, upgrade, downgrade, Schema(), HEAD))) == is_accepted
