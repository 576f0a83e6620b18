"""Tables without a version are those of the revision that they differ least from, whatever a revision changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from support.checkouts import Checkout
from support.drift import run
from support.legacy_databases import create_legacy_database
from support.revisions import AFTER_HEAD, HEAD

if TYPE_CHECKING:
    from support.servers import Database, Server

pytestmark = pytest.mark.long


class Change(NamedTuple):
    """A change of trend_signals: the operation of a revision, and the text of the models before and after it."""

    operation: str
    model: str
    changed: str


CHANGES = {
    "index": Change(
        'op.create_index("idx_trend_signals_frequency", "trend_signals", ["frequency"])',
        '        Index("idx_trend_signals_period"',
        '        Index("idx_trend_signals_frequency", "frequency"),\n        Index("idx_trend_signals_period"',
    ),
    "CHECK": Change(
        'op.create_check_constraint(op.f("ck_trend_signals_delta"), "trend_signals", "delta_pct >= -100")',
        '        CheckConstraint("frequency',
        '        CheckConstraint("delta_pct >= -100", name="delta"),\n        CheckConstraint("frequency',
    ),
    "ENUM label": Change(
        "op.execute(\"ALTER TYPE trend_status ADD VALUE 'seasonal'\")",
        '    DECLINING = "declining"',
        '    DECLINING = "declining"\n    SEASONAL = "seasonal"',
    ),
    "width": Change(
        'op.alter_column("trend_signals", "sector", type_=sa.String(500))',
        'mapped_column(ExactString(255), comment="Business',
        'mapped_column(ExactString(500), comment="Business',
    ),
    "dropped column": Change(
        'op.drop_column("trend_signals", "metadata")',
        "    metadata_: Mapped[dict[str, Any] | None] = mapped_column(\n"
        '        "metadata", ExactJson, comment="Additional data about the trend"\n    )\n',
        "",
    ),
}
SAMPLES = {**{kind: [change] for kind, change in CHANGES.items()}, "together": list(CHANGES.values())}
ROW = (
    "INSERT INTO trend_signals (sector, term, period_start, period_end, delta_pct) "
    "VALUES ('retail', 'organic', '2026-01-01', '2026-02-01', 7)"
)
# What tables created outside migrations lack.
INCOMPLETE = (
    "COMMENT ON TABLE trend_signals IS NULL",
    *(
        f"COMMENT ON COLUMN trend_signals.{column} IS NULL"
        for column in ("sector", "term", "frequency", "delta_pct", "status", "created_at")
    ),
    "ALTER TABLE trend_signals ALTER sector DROP NOT NULL, ALTER frequency DROP DEFAULT",
    "DROP INDEX idx_trend_signals_term",
    "ALTER TABLE trend_signals DROP CONSTRAINT ck_trend_signals_period_order",
    "DROP TABLE clusters",
)


@pytest.fixture(scope="module", params=SAMPLES)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, server: Server) -> Checkout:
    """A checkout with a revision after the newest."""
    checkout = Checkout(tmp_path_factory.mktemp("sample") / "checkout")
    changes = SAMPLES[request.param]
    for change in changes:
        checkout.change_model("trend_signals", change.model, change.changed)
    checkout.add_revision(AFTER_HEAD, "\n".join(change.operation for change in changes))
    checkout.write_manifests(server)
    return checkout


def unstamp(sample: Checkout, database: Database, revision: str, *statements: str) -> None:
    """Bring the tables of `database` to `revision`, with a row, and forget the revision."""
    if revision != HEAD:
        sample.succeed("syntegra-db", "upgrade", revision, database=database)
    run(database, ROW, *statements, "DROP TABLE alembic_version")


def adopt_and_verify(sample: Checkout, database: Database, revision: str) -> None:
    assert f"closest to revision {revision}" in sample.succeed("syntegra-db", "adopt", database=database)
    sample.succeed("syntegra-db", "adopt", "--apply", "--no-backup", "--yes", database=database)
    assert f"at revision {revision}: no drift" in sample.succeed("syntegra-db", "verify", database=database)
    assert database.query("SELECT sector, delta_pct FROM trend_signals") == [("retail", 7)]


@pytest.mark.parametrize("revision", [HEAD, AFTER_HEAD])
def test_tables_without_version_are_verified_and_adopted_at_their_revision(
    sample: Checkout, database: Database, revision: str
) -> None:
    unstamp(sample, database, revision)
    report = sample.succeed("syntegra-db", "verify", database=database, status=1)
    assert f"-- The tables are exactly those of revision {revision}.\n" in report
    adopt_and_verify(sample, database, revision)
    if revision == HEAD:
        sample.succeed("syntegra-db", "upgrade", database=database)
    assert f"At revision {AFTER_HEAD} of {AFTER_HEAD}\n" in sample.succeed("syntegra-db", "status", database=database)
    sample.succeed("alembic", "check", database=database)


@pytest.mark.parametrize("revision", [HEAD, AFTER_HEAD])
def test_incomplete_tables_are_adopted_at_their_revision(sample: Checkout, database: Database, revision: str) -> None:
    unstamp(sample, database, revision, *INCOMPLETE)
    report = sample.succeed("syntegra-db", "verify", database=database, status=1)
    assert "The tables are exactly" not in report
    assert "-- Run `syntegra-db adopt`" in report
    adopt_and_verify(sample, database, revision)


@pytest.mark.parametrize("sample", ["dropped column", "together"], indirect=True)
@pytest.mark.parametrize("legacy", ["serial_ids", "shared", "other_names"])
def test_legacy_database_with_dropped_column_is_at_the_revision_before(
    sample: Checkout, empty_database: Database, legacy: str
) -> None:
    create_legacy_database(empty_database, legacy)
    assert "closest to revision 003" in sample.run("syntegra-db", "adopt", database=empty_database).stdout
