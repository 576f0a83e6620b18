"""`bind` and `unbind`: a login that sees one client, whatever its sessions set."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from support.logins import ROLES, Logins, clients_seen, rows_as
from support.sample_rows import load_rows
from support.servers import ROLE_PASSWORD
from syntegra_db.connections import conninfo
from syntegra_db.errors import TenancyError
from syntegra_db.tenancy import bind, read_tenancy_status, unbind

if TYPE_CHECKING:
    from support.servers import Database, Server

CHANGES: tuple[LiteralString, ...] = (
    "SET syntegra.client_id = '8'",
    "SET ROLE syntegra_bound",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SET search_path = pg_temp, public",
    "CREATE TEMPORARY TABLE bound_logins AS SELECT session_user AS login, 8 AS client_id",
)


@pytest.fixture
def bound(separated: Database, logins: Logins) -> str:
    """Return a login that is bound to client 7 of a database with rows."""
    load_rows(separated, 2_000)
    login = logins.create()
    bind(separated.engine, login, 7)
    return login


@pytest.mark.parametrize("change", CHANGES)
def test_bound_login_sees_its_client_whatever_it_sets(separated: Database, bound: str, change: LiteralString) -> None:
    with psycopg.connect(conninfo(separated.url_as(bound)), autocommit=True) as connection:
        connection.execute(change)
        assert connection.execute("SELECT DISTINCT client_id FROM public.kpi_summary").fetchall() == [(7,)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE kpi_summary SET kpi_value = 0",
        "DELETE FROM kpi_summary",
        "INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (7, 1, '{}')",
        "SELECT count(*) FROM trend_signals",
        "SELECT * FROM bound_logins",
        "UPDATE bound_logins SET client_id = 8",
        "SET SESSION AUTHORIZATION postgres",
        "SET ROLE syntegra_service",
    ],
)
def test_bound_login_changes_nothing(separated: Database, bound: str, statement: LiteralString) -> None:
    with pytest.raises(InsufficientPrivilege):
        rows_as(separated, bound, statement, 7)


def test_another_login_cannot_call_the_look_up_or_write_bindings(separated: Database, logins: Logins) -> None:
    login = logins.create(ROLES.admin)
    for statement in ("SELECT bound_client_id()", "INSERT INTO bound_logins VALUES ('x', 8)", "TABLE bound_logins"):
        with pytest.raises(InsufficientPrivilege):
            rows_as(separated, login, statement)


def test_login_that_was_dropped_and_created_again_sees_nothing(separated: Database, server: Server, bound: str) -> None:
    name = sql.Identifier(bound)
    server.execute(sql.SQL("DROP ROLE {}").format(name))
    server.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, ROLE_PASSWORD))
    with pytest.raises(InsufficientPrivilege):
        clients_seen(separated, bound, "kpi_summary", 7)
    status = read_tenancy_status(separated.engine)
    assert status.bindings is not None
    assert [(binding.login, binding.is_attached) for binding in status.bindings] == [(bound, False)]
    with pytest.raises(TenancyError, match=f"bound to client 7.*unbind {bound}"):
        bind(separated.engine, bound, 8)
    unbind(separated.engine, bound)
    bind(separated.engine, bound, 8)
    assert clients_seen(separated, bound, "kpi_summary") == {8}


def test_unbound_login_sees_nothing(separated: Database, bound: str) -> None:
    unbind(separated.engine, bound)
    with pytest.raises(InsufficientPrivilege):
        clients_seen(separated, bound, "kpi_summary")
    assert read_tenancy_status(separated.engine).bindings == []
    with pytest.raises(TenancyError, match="bound to no client"):
        unbind(separated.engine, bound)


def test_binding_twice_changes_nothing(separated: Database, bound: str) -> None:
    bind(separated.engine, bound, 7)
    assert clients_seen(separated, bound, "kpi_summary") == {7}


def test_login_of_another_group_or_none_is_not_bound(separated: Database, logins: Logins, server: Server) -> None:
    service, superuser = logins.create(ROLES.service), logins.create()
    server.execute(sql.SQL("ALTER ROLE {} SUPERUSER").format(sql.Identifier(superuser)))
    wrong = {
        service: "is in syntegra_bound and in another group role",
        superuser: "is a superuser",
        "syntegra_nowhere": "There is no role syntegra_nowhere",
        ROLES.reader: "cannot log in",
    }
    for login, reason in wrong.items():
        with pytest.raises(TenancyError, match=reason):
            bind(separated.engine, login, 7)
    status = read_tenancy_status(separated.engine)
    assert (status.bindings, status.logins[ROLES.bound]) == ([], [])


@pytest.mark.parametrize("name", ['a "b"', "{login}", ":x", "o'k%s", "ñ"])
def test_any_name_of_a_login_can_be_bound(separated: Database, server: Server, name: str) -> None:
    load_rows(separated, 200)
    with server.role(name):
        bind(separated.engine, name, 7)
        assert clients_seen(separated, name, "kpi_summary") == {7}
        unbind(separated.engine, name)


def test_binding_without_policies_is_refused(database: Database, logins: Logins) -> None:
    with pytest.raises(TenancyError, match="syntegra-db tenancy enable"):
        bind(database.engine, logins.create(), 7)


@pytest.mark.parametrize("client", [2**63, -(2**63) - 1, True])
def test_number_beyond_bigint_is_no_client(separated: Database, client: int) -> None:
    with pytest.raises(TenancyError, match="bigint"):
        bind(separated.engine, "anyone", client)
