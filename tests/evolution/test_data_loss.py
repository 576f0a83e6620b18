"""What a migration says that it deletes, before it deletes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.revisions import AFTER_HEAD, HEAD
from support.sample_rows import load_rows
from syntegra_db.backup import describe_rollback_loss
from syntegra_db.catalog import Column, DataLoss, Schema, Table, data_losses
from syntegra_db.migrations import describe_data_loss, find_data_loss

if TYPE_CHECKING:
    from support.checkouts import Checkout
    from support.servers import Database, Server

WIDEN = """
    op.add_column("kpi_summary", sa.Column("unit", sa.Text()))
    op.execute("ALTER TABLE anomaly_log ALTER method TYPE varchar(120)")
    op.execute("ALTER TYPE anomaly_severity ADD VALUE 'extreme'")
    op.execute("CREATE TABLE notes (id bigserial PRIMARY KEY)")
"""
NARROW = """
    op.execute("DROP TABLE notes")
    op.drop_column("kpi_summary", "unit")
    op.execute("ALTER TABLE anomaly_log ALTER method TYPE varchar(100) USING left(method, 100)")
    op.execute("ALTER TYPE anomaly_severity RENAME TO old")
    op.execute("CREATE TYPE anomaly_severity AS ENUM ('low', 'medium', 'high', 'critical')")
    op.execute('''ALTER TABLE anomaly_log ALTER severity DROP DEFAULT, ALTER severity TYPE anomaly_severity
        USING CASE severity WHEN 'extreme' THEN 'critical' ELSE severity::text END::anomaly_severity,
        ALTER severity SET DEFAULT 'medium' ''')
    op.execute("DROP TYPE old")
"""
FILL = """
    UPDATE kpi_summary SET unit = 'EUR' WHERE id <= 123;
    UPDATE anomaly_log SET method = repeat('ä', 101) WHERE id <= 7;
    UPDATE anomaly_log SET severity = 'extreme' WHERE id <= 12
"""
LOST = (
    "label extreme of anomaly_log.severity (12 rows)",
    "kpi_summary.unit (123 rows with a value)",
    "values of anomaly_log.method that do not fit character varying(100) (7 rows)",
    "notes (0 rows)",
)


@pytest.mark.long
@pytest.mark.parametrize("program", ["syntegra-db", "alembic"])
def test_downgrade_announces_columns_labels_and_narrowed_values(
    checkout: Checkout, server: Server, database: Database, program: str
) -> None:
    load_rows(database, 2_000)
    checkout.add_revision(AFTER_HEAD, WIDEN, NARROW)
    checkout.migrate(server, database)
    database.execute(FILL)
    question = checkout.run("syntegra-db", "rollback", HEAD, "--no-backup", database=database)
    assert question.returncode == 22, question.stderr
    assert all(lost in question.stderr for lost in LOST), question.stderr
    result = checkout.run(program, "downgrade", HEAD, database=database)
    assert result.returncode == 0, result.stderr
    (announced,) = [line for line in result.stderr.splitlines() if "This drops" in line]
    assert all(lost in announced for lost in LOST), announced
    assert announced.count("(") == len(LOST) + 1, announced
    assert database.query("SELECT count(*) FROM anomaly_log WHERE severity = 'critical'") != [(0,)]


@pytest.mark.long
@pytest.mark.parametrize("program", ["syntegra-db", "alembic"])
def test_upgrade_announces_dropped_and_narrowed_columns(
    checkout: Checkout, server: Server, database: Database, program: str
) -> None:
    load_rows(database, 2_000)
    checkout.add_revision(
        AFTER_HEAD,
        """
        op.drop_column("data_sources", "config_json")
        op.execute("ALTER TABLE kpi_summary ALTER kpi_name TYPE varchar(5) USING left(kpi_name, 5)")
        op.drop_table("clusters")
        """,
    )
    checkout.write_manifests(server)
    [(configured,)] = database.query("SELECT count(config_json) FROM data_sources")
    result = checkout.run(program, "upgrade", "head", database=database)
    assert result.returncode == 0, result.stderr
    [announced] = [line for line in result.stderr.splitlines() if "This drops" in line]
    assert f"data_sources.config_json ({configured} rows with a value)" in announced
    assert "values of kpi_summary.kpi_name that do not fit character varying(5) (400 rows)" in announced
    assert "clusters (200 rows)" in announced


def test_migration_without_loss_announces_nothing(checkout: Checkout, server: Server, database: Database) -> None:
    checkout.add_revision(AFTER_HEAD, 'op.create_index("idx", "clusters", ["cluster_id"])', 'op.drop_index("idx")')
    checkout.migrate(server, database)
    result = checkout.run("syntegra-db", "rollback", HEAD, "--no-backup", database=database)
    assert result.returncode == 0, result.stderr
    assert "drops" not in result.stderr
    assert "permanently" not in result.stderr


def test_column_not_counted_in_time_names_the_rows_of_its_table(database: Database) -> None:
    load_rows(database, 2_000)
    loss = DataLoss("clusters.centroid", "clusters", "centroid", "{} IS NOT NULL")
    missing = DataLoss("clusters.unit", "clusters", "unit", "{} IS NOT NULL")
    other_type = DataLoss("clusters.client_id", "clusters", "client_id", "char_length({}) > 3", is_complete=False)
    database.execute("ANALYZE clusters")
    with database.connect() as holder, database.engine.connect() as connection:
        described = describe_data_loss(connection, [missing, other_type])
        assert described == "clusters.client_id (not counted, in about 200 rows)"
        holder.autocommit = False
        holder.execute("LOCK TABLE clusters")
        assert describe_data_loss(connection, [loss]) == "clusters.centroid (not counted, in about 200 rows)"


@pytest.mark.parametrize("target", ["002", "base"])
def test_released_revisions_lose_whole_tables(database: Database, target: str) -> None:
    described = describe_rollback_loss(target, database.engine)
    assert "with a value" not in described
    assert described.count("rows)") == (5 if target == "002" else 7)
    assert find_data_loss(None, HEAD) == find_data_loss("002", HEAD) == []


def test_losses_between_schemas_name_renamed_and_array_columns_and_skip_generated_ones() -> None:
    def schema(labels: tuple[str, ...], **types: str) -> Schema:
        columns = {name: Column(kind, "NULL", "PLAIN") for name, kind in types.items()}
        generated = {f"old_{len(types)}": Column("text", "NULL", "PLAIN", "GENERATED ALWAYS AS (1) STORED")}
        return Schema({"kind": labels}, {"t": Table(columns={**columns, **generated})})

    before = schema(("a", "b"), id="bigint", unit="text", kinds="kind[]", kind="kind")
    after = schema(("a",), id="bigint", unit_code="text", kinds="kind[]", kind="kind", more="text")
    losses = {loss.label: (loss.column, loss.is_complete) for loss in data_losses(before, after)}
    assert losses == {
        "t.unit": ("unit", True),
        "label b of t.kinds": ("kinds", False),
        "label b of t.kind": ("kind", False),
    }
