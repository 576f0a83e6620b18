"""What a later revision adds to a database with separated clients: tables, columns, partitions, in steps or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg.errors import InsufficientPrivilege

from support import psql
from support.checkouts import Checkout
from support.evolutions import EVOLUTIONS
from support.logins import ROLES, clients_seen, rows_as
from support.protection import BARE_TABLES, PROTECTED_TABLES, never_bare
from support.revisions import AFTER_HEAD, HEAD
from support.sample_rows import load_rows

if TYPE_CHECKING:
    from pathlib import Path

    from support.logins import Logins
    from support.servers import Database, Server

ROWS = 2_000
TABLE = """
op.create_table(
    "invoices",
    sa.Column("id", sa.BigInteger(), sa.Sequence("invoices_id_seq"), nullable=False),
    {columns}
    sa.PrimaryKeyConstraint("id", name="invoices_pkey"),
)
op.execute("ALTER TABLE invoices ALTER id SET DEFAULT nextval('invoices_id_seq')")
op.execute("ALTER SEQUENCE invoices_id_seq OWNED BY invoices.id")
"""
SEQUENCE = 'op.execute("CREATE SEQUENCE invoices_id_seq")'
CLIENT = 'sa.Column("client_id", sa.BigInteger(), nullable=False), sa.Column("total", sa.Numeric()),'
# Steps are committed one by one.
STEP = 'op.create_index_online("idx_invoices_total", "invoices", ["total"])'
DROP = 'op.drop_table("invoices")'
INSERT = "INSERT INTO invoices (client_id, total) VALUES ({}, 1) RETURNING client_id"
GRANTED_TABLES = """
    SELECT relname::text FROM pg_class CROSS JOIN aclexplode(relacl) WHERE pg_get_userbyid(grantee) LIKE 'syntegra\\_%'
    UNION
    SELECT attrelid::regclass::text FROM pg_attribute CROSS JOIN aclexplode(attacl)
    WHERE pg_get_userbyid(grantee) LIKE 'syntegra\\_%'
"""
# What the revision does, next to the table itself.
VARIANTS = {"one transaction": "", "steps": STEP}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout")


@pytest.fixture(params=VARIANTS)
def with_invoices(request: pytest.FixtureRequest, checkout: Checkout, server: Server) -> Checkout:
    """A checkout whose newest revision creates a table with clients, in one of the `VARIANTS`."""
    upgrade = SEQUENCE + TABLE.replace("{columns}", CLIENT) + VARIANTS[request.param]
    checkout.add_revision(AFTER_HEAD, upgrade, DROP, phase="expand")
    checkout.write_manifests(server)
    return checkout


@pytest.mark.parametrize("way", ["command", "file"])
def test_new_table_with_clients_is_protected(
    with_invoices: Checkout, separated: Database, logins: Logins, tmp_path: Path, way: str
) -> None:
    login = logins.create(ROLES.service)

    def migrate(*arguments: str) -> None:
        if way == "command":
            with_invoices.succeed("syntegra-db", *arguments, database=separated)
            return
        options = ("--rollback",) if arguments[0] == "downgrade" else ()
        script = with_invoices.succeed("syntegra-db", "sql", AFTER_HEAD, *options)
        result = psql.feed(separated.url, script, tmp_path)
        assert result.returncode == 0, result.stderr

    with never_bare(separated):
        for arguments in (("upgrade",), ("downgrade", HEAD), ("upgrade",)):
            migrate(*arguments)
    assert ("invoices",) in separated.query(PROTECTED_TABLES)
    assert rows_as(separated, login, "INSERT INTO invoices (client_id) VALUES (7) RETURNING client_id", 7) == [(7,)]
    assert clients_seen(separated, login, "invoices", 8) == set()
    with pytest.raises(InsufficientPrivilege, match="row-level security"):
        rows_as(separated, login, "INSERT INTO invoices (client_id) VALUES (8)", 7)
    with pytest.raises(InsufficientPrivilege):
        rows_as(separated, login, "INSERT INTO invoices (id, client_id) VALUES (1, 7)", 7)
    assert clients_seen(separated, logins.create(ROLES.admin), "invoices") == {7}


@pytest.mark.long
def test_new_table_without_clients_is_for_services_only_if_it_is_shared(
    checkout: Checkout, server: Server, separated: Database, logins: Logins
) -> None:
    checkout.add_revision(
        AFTER_HEAD, SEQUENCE + TABLE.replace("{columns}", 'sa.Column("total", sa.Numeric()),'), DROP, phase="expand"
    )
    checkout.write_manifests(server)
    checkout.succeed("syntegra-db", "upgrade", database=separated)
    login, admin = logins.create(ROLES.service), logins.create(ROLES.admin)
    for name in (login, admin):
        with pytest.raises(InsufficientPrivilege):
            rows_as(separated, name, "SELECT count(*) FROM invoices")
    status = checkout.succeed("syntegra-db", "tenancy", "status", database=separated)
    assert "No service may read invoices" in status
    assert "SHARED_TABLES" in status
    declared = checkout.folder / "syntegra_db/client_policies.py"
    text = declared.read_text(encoding="utf-8")
    declared.write_text(text.replace('{"trend_signals"}', '{"trend_signals", "invoices"}'), encoding="utf-8")
    checkout.succeed("syntegra-db", "tenancy", "enable", database=separated)
    assert rows_as(separated, login, "SELECT count(*) FROM invoices") == [(0,)]
    with pytest.raises(InsufficientPrivilege):
        rows_as(separated, login, "INSERT INTO invoices (total) VALUES (1)")
    rows_as(separated, admin, "INSERT INTO invoices (total) VALUES (1)")


def test_new_column_is_granted(checkout: Checkout, server: Server, separated: Database, logins: Logins) -> None:
    load_rows(separated, ROWS)
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS["nullable column"], phase="expand")
    checkout.write_manifests(server)
    checkout.succeed("syntegra-db", "upgrade", database=separated)
    login = logins.create(ROLES.service)
    rows = rows_as(separated, login, "UPDATE kpi_summary SET unit = 'EUR' RETURNING client_id", 7)
    assert {client for (client,) in rows} == {7}
    assert separated.query("SELECT DISTINCT client_id FROM kpi_summary WHERE unit = 'EUR'") == [(7,)]


@pytest.mark.long
def test_partitioned_table_stays_protected(
    checkout: Checkout, server: Server, separated: Database, logins: Logins
) -> None:
    load_rows(separated, ROWS)
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS["partitions by month"], phase="expand")
    checkout.write_manifests(server)
    login = logins.create(ROLES.service)
    with never_bare(separated):
        for arguments in (("upgrade",), ("downgrade", HEAD), ("upgrade",)):
            checkout.succeed("syntegra-db", *arguments, database=separated)
            assert clients_seen(separated, login, "kpi_summary", 7) == {7}
            assert clients_seen(separated, login, "kpi_summary") == set()
            assert separated.query(BARE_TABLES) == []
            assert ("kpi_summary",) in separated.query(PROTECTED_TABLES)
    # The first partition keeps the policies of the table that it was, which use the function of the bound logins.
    checkout.succeed("syntegra-db", "tenancy", "disable", "--yes", database=separated)
    assert separated.query("SELECT polrelid::regclass FROM pg_policy") == []
    assert separated.query(GRANTED_TABLES) == []
    assert separated.query("SELECT relname FROM pg_class WHERE relrowsecurity") == []


@pytest.mark.long
def test_rollback_file_protects_only_what_it_creates(checkout: Checkout, server: Server) -> None:
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS["dropped column"])
    checkout.write_manifests(server)
    assert "CREATE POLICY" in checkout.succeed("syntegra-db", "sql", AFTER_HEAD, "--rollback")
    assert "CREATE POLICY" not in checkout.succeed("syntegra-db", "sql", HEAD, "--rollback")
