"""`disable` removes exactly what `enable` made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from support.installed_state import state_of
from support.logins import ROLES, clients_seen, rows_as
from syntegra_db import migrations
from syntegra_db.errors import TenancyError
from syntegra_db.search_path import with_schema
from syntegra_db.tenancy import disable, enable

if TYPE_CHECKING:
    from support.logins import Logins
    from support.servers import Database, Server


def roles_of(database: Database) -> set[str]:
    return {row[0] for row in database.query("SELECT rolname::text FROM pg_roles WHERE rolname ~ '^syntegra_[a-z]+$'")}


@pytest.mark.usefixtures("no_group_roles")
def test_disable_restores_the_schema_and_the_privileges(database: Database) -> None:
    before = state_of(database), roles_of(database)
    enable(database.engine)
    assert state_of(database) != before[0]
    result = disable(database.engine)
    assert (state_of(database), roles_of(database)) == before
    assert (set(result.dropped_roles), result.kept_roles) == (set(ROLES), {})
    with pytest.raises(TenancyError, match="tenancy enable"):
        disable(database.engine)


def test_privileges_of_the_administrator_stay(separated: Database) -> None:
    separated.execute("GRANT TRUNCATE ON clusters TO syntegra_service; GRANT SELECT ON kpi_summary TO PUBLIC")
    result = disable(separated.engine)
    assert "clusters" in result.kept_roles[ROLES.service]
    assert separated.query(
        "SELECT has_table_privilege('syntegra_service', 'clusters', 'TRUNCATE'),"
        " has_table_privilege('syntegra_service', 'clusters', 'DELETE')"
    ) == [(True, False)]
    separated.execute("REVOKE TRUNCATE ON clusters FROM syntegra_service")


@pytest.mark.usefixtures("no_group_roles")
def test_role_that_an_administrator_created_stays(server: Server, database: Database) -> None:
    server.execute("CREATE ROLE syntegra_reader")
    database.execute("GRANT USAGE ON SCHEMA public TO syntegra_reader")
    enable(database.engine)
    result = disable(database.engine)
    assert list(result.kept_roles) == [ROLES.reader]
    assert database.query(
        "SELECT count(*) FROM pg_namespace CROSS JOIN aclexplode(nspacl) WHERE nspname = 'public'"
        " AND pg_get_userbyid(grantee) = 'syntegra_reader'"
    ) == [(1,)]


def test_roles_that_another_database_uses_stay(
    separated: Database, server: Server, migrated_template: str, logins: Logins
) -> None:
    with server.database(migrated_template) as other:
        assert enable(other.engine).created_roles == ()
        result = disable(separated.engine)
        assert result.dropped_roles == ()
        assert other.name in result.kept_roles[ROLES.service]
        login = logins.create(ROLES.service)
        other.execute("INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (7, 1, '{}'), (8, 1, '{}')")
        assert clients_seen(other, login, "clusters", 7) == {7}
        with pytest.raises(InsufficientPrivilege):
            clients_seen(separated, login, "clusters", 7)
        disable(other.engine)


def test_disable_works_without_a_role_that_was_dropped(separated: Database) -> None:
    separated.execute("DROP OWNED BY syntegra_reader; DROP ROLE syntegra_reader")
    disable(separated.engine)
    assert separated.query("SELECT FROM pg_policy") == []


@pytest.mark.parametrize("first", ["public", "other"])
@pytest.mark.usefixtures("no_group_roles")
def test_second_schema_keeps_what_it_needs_and_the_last_one_leaves_nothing(
    database: Database, logins: Logins, first: str
) -> None:
    database.execute("CREATE SCHEMA other; REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    migrations.upgrade(url=database.engine, schema="other")
    before = state_of(database), roles_of(database)
    schemas = {name: with_schema(database.engine, name) for name in ("public", "other")}
    last = next(name for name in schemas if name != first)
    for schema in (first, last):
        enable(schemas[schema])
    assert disable(schemas[first]).dropped_roles == ()
    login = logins.create(ROLES.service)
    rows_as(database, login, "CREATE TEMPORARY TABLE stage (n integer)")
    query = sql.SQL("SELECT (SELECT count(*) FROM {}.clusters), '[1]'::public.vector").format(sql.Identifier(last))
    assert rows_as(database, login, query, 7) == [(0, "[1]")]
    assert set(disable(schemas[last]).dropped_roles) == set(ROLES)
    assert (state_of(database), roles_of(database)) == before
