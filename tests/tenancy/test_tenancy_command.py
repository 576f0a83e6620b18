"""`syntegra-db tenancy`: what the commands print and ask."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from support.commands import run, succeed
from support.legacy_databases import execute
from support.logins import ROLES, clients_seen
from support.protection import PROTECTED_TABLES
from support.sample_rows import load_rows

if TYPE_CHECKING:
    from support.logins import Logins
    from support.servers import Database

EXIT_USAGE = 2
EXIT_REFUSED = 33
EXIT_NOT_CONFIRMED = 22


def tenancy(database: Database, *arguments: str) -> str:
    return succeed("syntegra-db", "tenancy", *arguments, url=database.environment_url)


@pytest.mark.long
def test_printed_statements_attach_logins(logins: Logins, database: Database) -> None:
    load_rows(database, 2_000)
    output = tenancy(database, "enable")
    statements = re.findall(r"^ +(GRANT .*;)$", output, flags=re.MULTILINE)
    assert len(statements) == len(ROLES) - 1
    login = logins.create()
    execute(database, statements[0].replace("my_login", login))
    assert clients_seen(database, login, "kpi_summary", 7) == {7}
    assert "password" not in output.lower()
    bound = logins.create()
    assert f"{bound} reads the rows of client 8" in tenancy(database, "bind", bound, "8")
    status = json.loads(tenancy(database, "status", "--json"))
    assert status["is_enabled"]
    assert status["logins"] == {ROLES.service: [login], ROLES.reader: [], ROLES.admin: [], ROLES.bound: [bound]}
    assert status["bindings"] == [{"login": bound, "client_id": 8, "is_attached": True}]
    assert status["unprotected_tables"] == status["tables_without_client"] == []
    printed = tenancy(database, "status")
    assert re.search(rf"{bound} +8 +yes", printed)
    tenancy(database, "unbind", bound)
    assert "Bound login" not in tenancy(database, "status")


def test_disable_names_who_loses_access_and_asks(separated: Database, logins: Logins) -> None:
    login, bound = logins.create(ROLES.service), logins.create()
    tenancy(separated, "bind", bound, "8")
    url = separated.environment_url
    refused = run("syntegra-db", "tenancy", "disable", url=url)
    assert refused.returncode == EXIT_NOT_CONFIRMED
    assert f"lose access to the rows of the database {separated.name}" in refused.stderr
    assert {login, bound} <= set(re.findall(r"\w+", refused.stderr))
    assert "clients of bound logins are deleted" in refused.stderr
    assert separated.query(PROTECTED_TABLES)
    output = tenancy(separated, "disable", "--yes")
    assert f"dropped {', '.join(ROLES)}" in output
    assert separated.query(PROTECTED_TABLES) == []
    assert "not separated" in tenancy(separated, "status")
    again = run("syntegra-db", "tenancy", "disable", "--yes", url=url)
    assert (again.returncode, "syntegra-db tenancy enable" in again.stderr) == (EXIT_REFUSED, True)


def test_status_names_what_is_not_protected(separated: Database, logins: Logins) -> None:
    login = logins.create(ROLES.service)
    execute(separated, "DROP POLICY client_select ON clusters", f"ALTER ROLE {login} BYPASSRLS")
    printed = tenancy(separated, "status")
    assert "Not protected: clusters" in printed
    assert f"UNSAFE: {login} has BYPASSRLS" in printed


@pytest.mark.long
def test_any_bigint_is_a_client(separated: Database, logins: Logins) -> None:
    login = logins.create()
    for client in ("-8", "0", str(-(2**63)), str(2**63 - 1)):
        assert f"client {client}, and no others" in tenancy(separated, "bind", login, client)
        assert separated.query("SELECT client_id FROM bound_logins") == [(int(client),)]
        tenancy(separated, "unbind", login)


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (("bind", "anyone", "-8x"), EXIT_USAGE, "valid integer"),
        (("bind", "anyone", "--force"), EXIT_USAGE, "valid integer"),
        (("bind", "anyone", "seven"), EXIT_USAGE, "valid integer"),
        (("bind", "anyone", "-8", "-9"), EXIT_USAGE, "extra argument"),
        (("bind", "anyone", str(-(2**63) - 1)), EXIT_REFUSED, "not the number of a client"),
        (("bind", "-absent", "-8"), EXIT_REFUSED, "There is no role"),
        (("unbind", "-absent"), EXIT_REFUSED, "is bound to no client"),
    ],
)
def test_what_is_no_client_or_login_is_explained(
    separated: Database, arguments: tuple[str, ...], status: int, reason: str
) -> None:
    result = run("syntegra-db", "tenancy", *arguments, url=separated.environment_url)
    assert (result.returncode, reason in " ".join(result.stderr.split())) == (status, True), result.stderr
