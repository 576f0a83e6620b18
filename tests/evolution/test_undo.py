"""What an interrupted revision with steps leaves, and what its continuation and its undo must not touch."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from support.evolutions import UNFINISHED
from support.revisions import AFTER_HEAD, BEFORE_HEAD, HEAD
from support.sample_rows import load_rows, row_digests
from syntegra_db import migrations
from syntegra_db.connections import connect
from syntegra_db.errors import RevisionError

if TYPE_CHECKING:
    from support.checkouts import Checkout
    from support.servers import Database, Server

pytestmark = pytest.mark.long

EXIT_MIGRATION_FAILED = 11
EXIT_REVISION_ERROR = 8
EXIT_LOCK_TIMEOUT = 15
SECOND = f"{int(HEAD) + 2:03}"
# It fails at its second step, because names are not unique.
DUPLICATES = (
    """
    op.add_column("kpi_summary", sa.Column("unit", sa.Text()))
    op.create_index_online("idx_kpi_summary_name", "kpi_summary", ["kpi_name"], unique=True)
    """,
    """
    op.drop_index_online("idx_kpi_summary_name", "kpi_summary")
    op.drop_column("kpi_summary", "unit")
    """,
)


@pytest.fixture
def filled(database: Database) -> Database:
    load_rows(database, 1_000)
    return database


def upgrade(checkout: Checkout, server: Server, database: Database, body: tuple[str, str], status: int) -> str:
    """Upgrade to a revision with these functions, and return the standard error."""
    checkout.add_revision(AFTER_HEAD, *body, phase="expand")
    checkout.write_manifests(server)
    result = checkout.run("syntegra-db", "upgrade", database=database)
    assert result.returncode == status, result.stderr
    return result.stderr


def undo(checkout: Checkout, database: Database) -> None:
    result = checkout.run("syntegra-db", "downgrade", "-1", database=database)
    assert result.returncode == 0, result.stderr
    verified = checkout.run("syntegra-db", "verify", database=database)
    assert verified.returncode == 0, verified.stdout
    assert not database.query(UNFINISHED)


def test_undo_drops_nothing_of_another_set_of_tables(checkout: Checkout, server: Server, filled: Database) -> None:
    filled.execute("CREATE SCHEMA app")
    migrations.upgrade("head", url=filled.url, schema="app")
    filled.execute("INSERT INTO app.kpi_summary SELECT * FROM public.kpi_summary")
    upgrade(checkout, server, filled, DUPLICATES, EXIT_MIGRATION_FAILED)
    filled.execute(sql.SQL("ALTER DATABASE {} SET search_path = app, public").format(sql.Identifier(filled.name)))
    assert checkout.run("syntegra-db", "upgrade", database=filled).returncode == EXIT_MIGRATION_FAILED
    filled.execute("CREATE UNIQUE INDEX idx_kpi_summary_name ON public.kpi_summary (id)")
    result = checkout.run("syntegra-db", "downgrade", "-1", database=filled)
    assert result.returncode == EXIT_MIGRATION_FAILED
    assert "for the extension vector, has the index idx_kpi_summary_name: an undo could drop that one" in result.stderr
    assert filled.query("SELECT to_regclass('public.idx_kpi_summary_name')::text") != [(None,)]


@pytest.mark.parametrize(
    "index",
    [
        "UNIQUE INDEX idx_kpi_summary_value ON data_sources (id)",
        "INDEX idx_kpi_summary_value ON kpi_summary (client_id)",
        "UNIQUE INDEX idx_kpi_summary_value ON kpi_summary (id)",
    ],
)
def test_index_of_another_kind_with_the_name_is_kept_and_named(
    checkout: Checkout, server: Server, filled: Database, index: str
) -> None:
    filled.execute(f"CREATE {index}")
    before = filled.query("SELECT pg_get_indexdef('idx_kpi_summary_value'::regclass)")
    body = ('op.create_index_online("idx_kpi_summary_value", "kpi_summary", ["kpi_value"])', "pass")
    errors = upgrade(checkout, server, filled, body, EXIT_MIGRATION_FAILED)
    assert 'relation "idx_kpi_summary_value" already exists' in errors
    assert filled.query("SELECT pg_get_indexdef('idx_kpi_summary_value'::regclass)") == before


def test_backfill_includes_every_id(checkout: Checkout, server: Server, database: Database) -> None:
    load_rows(database, 100)
    database.execute(
        "UPDATE kpi_summary SET id = id - 3; UPDATE kpi_summary SET id = -9223372036854775808 WHERE id = 5"
    )
    body = ("""op.backfill("kpi_summary", {"metadata": "'{}'"})""", "pass")
    upgrade(checkout, server, database, body, 0)
    assert database.query("SELECT id FROM kpi_summary WHERE metadata IS NULL") == []


def test_upgrade_after_interrupted_expansion_stops_before_contraction(
    checkout: Checkout, server: Server, filled: Database
) -> None:
    checkout.add_revision(
        SECOND, 'op.drop_column("kpi_summary", "metadata")', "pass", before=AFTER_HEAD, phase="contract"
    )
    upgrade(checkout, server, filled, DUPLICATES, EXIT_MIGRATION_FAILED)
    filled.execute("UPDATE kpi_summary SET kpi_name = id::text")
    result = checkout.run("syntegra-db", "upgrade", database=filled)
    assert result.returncode == 0, result.stderr
    assert f"Stopping before revision {SECOND}" in result.stderr
    assert filled.query("SELECT version_num FROM alembic_version") == [(AFTER_HEAD,)]


@pytest.mark.parametrize("columns", ["step int, revision text", "id int"])
def test_record_of_another_role_is_not_read(checkout: Checkout, server: Server, filled: Database, columns: str) -> None:
    with server.role("syntegra_intruder") as intruder:
        filled.execute("GRANT CREATE ON SCHEMA public TO syntegra_intruder")
        filled.execute(f"CREATE TABLE alembic_version_steps ({columns})")
        filled.execute(sql.SQL("ALTER TABLE alembic_version_steps OWNER TO {}").format(sql.Identifier(intruder)))
        for command in ("status", "verify", "upgrade", "backup", "rollback 002"):
            result = checkout.run("syntegra-db", *command.split(), database=filled)
            assert result.returncode in {2, EXIT_REVISION_ERROR}, result.stderr
            assert "is not an ordinary table of the owner of alembic_version" in result.stderr
        filled.execute("DROP OWNED BY syntegra_intruder")


def test_undo_of_not_null_drops_its_constraint(checkout: Checkout, server: Server, filled: Database) -> None:
    body = (
        'op.set_not_null_online("kpi_summary", "metadata")',
        'op.alter_column("kpi_summary", "metadata", nullable=True)',
    )
    errors = upgrade(checkout, server, filled, body, EXIT_MIGRATION_FAILED)
    query = errors.partition("run this again: ")[2].strip()
    assert filled.query(query)
    undo(checkout, filled)
    assert not filled.query("SELECT FROM pg_constraint WHERE conname LIKE '%metadata_not_null' AND contype = 'c'")


def test_undo_of_unique_constraint_drops_its_index(
    checkout: Checkout, server: Server, filled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTEGRA_LOCK_RETRY_TIMEOUT", "1")
    body = (
        'op.create_unique_constraint_online("uq_kpi_summary_id", "kpi_summary", ["client_id", "id"])',
        'op.drop_constraint("uq_kpi_summary_id", "kpi_summary")',
    )
    with filled.connect() as reader:
        reader.execute("BEGIN; SELECT FROM kpi_summary LIMIT 1")
        errors = upgrade(checkout, server, filled, body, EXIT_LOCK_TIMEOUT)
        assert "step 2 of 2, add unique constraint uq_kpi_summary_id" in errors
    assert filled.query("SELECT FROM pg_class WHERE relname = 'uq_kpi_summary_id'")
    undo(checkout, filled)
    assert not filled.query("SELECT FROM pg_class WHERE relname = 'uq_kpi_summary_id'")


def test_undo_keeps_constraint_of_the_application_with_the_name(
    checkout: Checkout, server: Server, filled: Database
) -> None:
    filled.execute("ALTER TABLE kpi_summary ADD CONSTRAINT uq_kpi_summary_id UNIQUE (id, kpi_name)")
    body = (
        'op.create_unique_constraint_online("uq_kpi_summary_id", "kpi_summary", ["client_id", "id"])',
        'op.drop_constraint("uq_kpi_summary_id", "kpi_summary")',
    )
    upgrade(checkout, server, filled, body, EXIT_MIGRATION_FAILED)
    result = checkout.run("syntegra-db", "downgrade", HEAD, database=filled)
    assert result.returncode == 0, result.stderr
    assert filled.query("SELECT count(*) FROM pg_constraint WHERE conname = 'uq_kpi_summary_id'") == [(1,)]


def test_condition_with_colons_is_kept(checkout: Checkout, server: Server, filled: Database) -> None:
    condition = "kpi_name <> 'a :b %(x)s :id' AND kpi_name::text <> ':c'"
    body = (
        f'op.create_check_constraint_online("ck_colon", "kpi_summary", "{condition}")',
        'op.drop_constraint("ck_colon", "kpi_summary")',
    )
    upgrade(checkout, server, filled, body, 0)
    [(definition,)] = filled.query("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'ck_colon'")
    assert "'a :b %(x)s :id'" in definition
    assert "':c'" in definition


BACKFILLED = """
    op.backfill("kpi_summary", {"kpi_value": "kpi_value * 100"}, batch=50)
    op.create_index_online("idx_kpi_summary_name", "kpi_summary", ["kpi_name"], unique=True)
"""


@pytest.mark.parametrize(
    ("begun", "undoing"),
    [
        (BACKFILLED, 'op.backfill("kpi_summary", {"kpi_value": "kpi_value / 100"})'),
        (BACKFILLED, 'op.execute("UPDATE kpi_summary SET kpi_value = kpi_value / 100")'),
        (DUPLICATES[0], 'op.execute("ALTER TABLE kpi_summary DROP unit")'),
        ('op.execute("SELECT 1")' + dedent(DUPLICATES[0]), DUPLICATES[1]),
    ],
)
def test_undo_that_could_change_other_values_is_refused(
    checkout: Checkout, server: Server, filled: Database, begun: str, undoing: str
) -> None:
    upgrade(checkout, server, filled, (begun, undoing), EXIT_MIGRATION_FAILED)
    before = row_digests(filled)
    result = checkout.run("syntegra-db", "downgrade", HEAD, database=filled)
    assert result.returncode == EXIT_MIGRATION_FAILED, result.stderr
    assert "It cannot be undone: it is not known how to undo each of the steps" in result.stderr
    assert row_digests(filled) == before
    filled.execute("UPDATE kpi_summary SET kpi_name = id::text")
    assert checkout.run("syntegra-db", "upgrade", database=filled).returncode == 0


def test_undo_keeps_what_a_step_that_was_not_reached_would_have_added(
    checkout: Checkout, server: Server, filled: Database
) -> None:
    filled.execute("ALTER TABLE kpi_summary ADD unit text DEFAULT 'own'")
    body = (
        """
        op.create_index_online("idx_kpi_summary_name", "kpi_summary", ["kpi_name"], unique=True)
        op.add_column("kpi_summary", sa.Column("unit", sa.Text()))
        op.backfill("kpi_summary", {"kpi_value": "0"})
        """,
        """
        op.backfill("kpi_summary", {"kpi_value": "1"})
        op.drop_column("kpi_summary", "unit")
        op.drop_index_online("idx_kpi_summary_name", "kpi_summary")
        """,
    )
    upgrade(checkout, server, filled, body, EXIT_MIGRATION_FAILED)
    before = row_digests(filled)
    undo(checkout, filled)
    assert row_digests(filled) == before


def test_undo_before_the_first_step_removes_the_record_only(
    checkout: Checkout, server: Server, filled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTEGRA_LOCK_RETRY_TIMEOUT", "1")
    body = (
        """
        op.execute("ALTER TABLE kpi_summary ADD unit text")
        op.create_index_online("idx_kpi_summary_unit", "kpi_summary", ["unit"])
        """,
        """
        op.drop_index_online("idx_kpi_summary_unit", "kpi_summary")
        op.execute("ALTER TABLE kpi_summary DROP unit")
        """,
    )
    with filled.connect() as reader:
        reader.execute("BEGIN; SELECT FROM kpi_summary LIMIT 1")
        upgrade(checkout, server, filled, body, EXIT_LOCK_TIMEOUT)
    undo(checkout, filled)


def test_relative_downgrade_counts_unfinished_upgrade_and_stamp_is_rejected(
    checkout: Checkout, server: Server, filled: Database
) -> None:
    upgrade(checkout, server, filled, DUPLICATES, EXIT_MIGRATION_FAILED)
    for revision in (HEAD, AFTER_HEAD, BEFORE_HEAD):
        stamp = checkout.run("alembic", "stamp", revision, database=filled)
        assert stamp.returncode == EXIT_REVISION_ERROR, stamp.stderr
    with connect(filled.engine) as connection, connection.begin(), pytest.raises(RevisionError, match="unfinished"):
        migrations.run_in_transaction(connection, "downgrade", BEFORE_HEAD)
    result = checkout.run("syntegra-db", "downgrade", "-2", database=filled)
    assert result.returncode == 0, result.stderr
    assert filled.query("SELECT version_num FROM alembic_version") == [(BEFORE_HEAD,)]
    assert checkout.run("syntegra-db", "verify", database=filled).returncode == 0
