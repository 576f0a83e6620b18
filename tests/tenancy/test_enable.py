"""`enable`: what it makes, what it refuses, and that a second run changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.logins import Logins, clients_seen
from support.sample_rows import TABLES, load_rows
from syntegra_db.client_policies import SHARED_TABLES, group_roles

if TYPE_CHECKING:
    from support.servers import Database

ROWS = 2_000
CLIENT_TABLES = tuple(table for table in TABLES if table not in SHARED_TABLES)
ROLES = group_roles("syntegra_")


@pytest.mark.parametrize("table", CLIENT_TABLES)
def test_service_and_reader_see_rows_of_the_client_in_the_setting(
    separated: Database, logins: Logins, table: str
) -> None:
    load_rows(separated, ROWS)
    for group in (ROLES.service, ROLES.reader):
        login = logins.create(group)
        assert clients_seen(separated, login, table, 7) == {7}
        assert clients_seen(separated, login, table) == set()
    assert clients_seen(separated, logins.create(ROLES.admin), table) > {7, 8}
