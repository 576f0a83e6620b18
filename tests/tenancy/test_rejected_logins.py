"""Whom `enable` refuses as a member, a group role or the role that runs it, and what it asks an administrator for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, LiteralString

import pytest
from psycopg import sql

from support.installed_state import state_of
from support.logins import ROLES, clients_seen, drop_group_roles, rows_as
from support.sample_rows import TABLES, load_rows
from syntegra_db.connections import unpooled_engine
from syntegra_db.errors import TenancyError
from syntegra_db.tenancy import EnableResult, bind, disable, enable, read_tenancy_status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from support.logins import Logins
    from support.servers import Database, Server

OWNER = "syntegra_test_tables_owner"
# What makes the login {login} see the rows of every client, by the reason that the message gives.
UNSAFE: dict[str, tuple[LiteralString, str]] = {
    "superuser": ("ALTER ROLE {login} SUPERUSER", "is a superuser"),
    "BYPASSRLS": ("ALTER ROLE {login} BYPASSRLS", "has BYPASSRLS"),
    "owner": ("ALTER TABLE clusters OWNER TO {login}", "owns a table"),
    "member of the owner": ("ALTER TABLE clusters OWNER TO {owner}; GRANT {owner} TO {login}", "owns a table"),
    "bound and unbound": ("GRANT syntegra_bound TO {login}", "is in syntegra_bound and in another"),
    "bound through a role": ("GRANT syntegra_bound TO {owner}; GRANT {owner} TO {login}", "is in syntegra_bound and"),
    "REPLICATION": ("ALTER ROLE {login} REPLICATION", "has REPLICATION"),
    "member of REPLICATION": ("ALTER ROLE {owner} REPLICATION; GRANT {owner} TO {login}", "has REPLICATION"),
    "pg_read_all_data": ("GRANT pg_read_all_data TO {login}", "is a member of pg_read_all_data"),
    "pg_write_all_data through a role": (
        "GRANT pg_write_all_data TO {owner}; GRANT {owner} TO {login}",
        "is a member of pg_write_all_data",
    ),
    "server files by SET ROLE": (
        "GRANT pg_read_server_files, pg_write_server_files TO {login} WITH INHERIT FALSE, SET TRUE",
        "is a member of pg_read_server_files, pg_write_server_files",
    ),
    "programs": ("GRANT pg_execute_server_program TO {login}", "is a member of pg_execute_server_program"),
    "ADMIN OPTION": ("GRANT syntegra_service TO {login} WITH ADMIN OPTION", "has ADMIN OPTION on syntegra_service"),
    "ADMIN OPTION without the role": (
        "GRANT syntegra_admin TO {login} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE",
        "has ADMIN OPTION on syntegra_admin",
    ),
    "ADMIN OPTION through a role": (
        "GRANT syntegra_reader TO {owner} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE; GRANT {owner} TO {login}",
        "has ADMIN OPTION on syntegra_reader",
    ),
    "ADMIN OPTION on a role with BYPASSRLS": (
        "ALTER ROLE {owner} BYPASSRLS; GRANT {owner} TO {login} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE",
        "can make itself a member of {owner}",
    ),
    "ADMIN OPTION on the owner": (
        "ALTER TABLE clusters OWNER TO {owner}; GRANT {owner} TO {login} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE",
        "can make itself a member of {owner}",
    ),
    "member of BYPASSRLS": ("ALTER ROLE {owner} BYPASSRLS; GRANT {owner} TO {login}", "has BYPASSRLS"),
}
# What shows a login no row of another client.
SAFE: dict[str, LiteralString] = {
    "CREATEDB": "ALTER ROLE {login} CREATEDB",
    "statistics": "GRANT pg_monitor TO {login}",
    "ADMIN OPTION on a role without rights": "GRANT {owner} TO {login} WITH ADMIN OPTION",
    "ADMIN OPTION of a login that sees all clients": (
        "REVOKE syntegra_service FROM {login}; GRANT syntegra_admin TO {login} WITH ADMIN OPTION"
    ),
    "another group of the same client": "GRANT syntegra_reader TO {owner}; GRANT {owner} TO {login}",
}
# What a login may have since these versions of the server.
SAFE_SINCE: dict[int, LiteralString] = {
    16: "ALTER ROLE {login} CREATEROLE",
    17: "GRANT pg_maintain TO {login}",
}
GROUP_ROLES: dict[str, tuple[LiteralString, str]] = {
    "LOGIN": ("CREATE ROLE syntegra_reader LOGIN", "has LOGIN"),
    "SUPERUSER": ("CREATE ROLE syntegra_bound SUPERUSER", "has SUPERUSER"),
    "BYPASSRLS": ("CREATE ROLE syntegra_admin BYPASSRLS", "has BYPASSRLS"),
    "member": ("CREATE ROLE syntegra_service IN ROLE pg_read_all_data", "is a member of pg_read_all_data"),
}
POLICIES: dict[str, tuple[LiteralString, LiteralString]] = {
    "policy": ("CREATE POLICY own ON clusters USING (true)", "DROP POLICY own ON public.clusters;"),
    "row-level security": (
        "ALTER TABLE clusters ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE public.clusters DISABLE ROW LEVEL SECURITY;",
    ),
    "FORCE": (
        "ALTER TABLE clusters FORCE ROW LEVEL SECURITY",
        "ALTER TABLE public.clusters NO FORCE ROW LEVEL SECURITY;",
    ),
}


@pytest.fixture
def owner(server: Server, logins: Logins) -> Iterator[str]:
    """A role that cannot log in."""
    server.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(OWNER)))
    server.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(OWNER)))
    del logins
    yield OWNER
    server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(OWNER)))


@pytest.mark.parametrize("kind", UNSAFE)
def test_login_that_sees_every_client_is_named(owner: str, logins: Logins, separated: Database, kind: str) -> None:
    statement, reason = UNSAFE[kind]
    login = logins.create(ROLES.service)
    enable(separated.engine)
    separated.execute(sql.SQL(statement).format(login=sql.Identifier(login), owner=sql.Identifier(owner)))
    with pytest.raises(TenancyError, match=rf"nothing was changed\. {login} {reason.format(owner=owner)}"):
        enable(separated.engine)
    status = read_tenancy_status(separated.engine)
    assert reason.format(owner=owner) in status.unsafe_logins[login]
    separated.execute("ALTER TABLE clusters OWNER TO CURRENT_USER")


@pytest.mark.parametrize("kind", SAFE)
def test_login_that_sees_its_client_only_is_accepted(
    owner: str, logins: Logins, separated: Database, kind: str
) -> None:
    login = logins.create(ROLES.service)
    separated.execute(sql.SQL(SAFE[kind]).format(login=sql.Identifier(login), owner=sql.Identifier(owner)))
    enable(separated.engine)
    assert read_tenancy_status(separated.engine).unsafe_logins == {}


def test_rights_of_later_servers_are_judged_by_version(separated: Database, logins: Logins) -> None:
    major = separated.query("SELECT current_setting('server_version_num')::int / 10000")[0][0]
    login = logins.create(ROLES.service)
    for statement in (statement for version, statement in SAFE_SINCE.items() if version <= major):
        separated.execute(sql.SQL(statement).format(login=sql.Identifier(login)))
        enable(separated.engine)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT FROM pg_statistic WHERE starelid = 'text_summary'::regclass",
        "SELECT FROM {toast}",
        "UPDATE bound_logins SET client_id = 8",
    ],
)
def test_predefined_roles_cross_clients(logins: Logins, separated: Database, statement: LiteralString) -> None:
    """The reason for which a login with them is refused, although the policies apply to it."""
    bound = logins.create()
    bind(separated.engine, bound, 7)
    separated.execute(
        "INSERT INTO text_summary (client_id, text_field) SELECT 8, string_agg(md5(n::text), '')"
        " FROM generate_series(1, 2000) AS n; ANALYZE text_summary"
    )
    separated.execute(sql.SQL("GRANT pg_read_all_data, pg_write_all_data TO {}").format(sql.Identifier(bound)))
    ((toast,),) = separated.query("SELECT reltoastrelid::regclass::text FROM pg_class WHERE relname = 'text_summary'")
    query = sql.SQL(
        "WITH found AS ({} RETURNING 1) SELECT count(*) FROM found"
        if "UPDATE" in statement
        else "SELECT count(*) FROM ({}) AS found"
    ).format(sql.SQL(statement).format(toast=sql.SQL(toast)))
    assert rows_as(separated, bound, query) > [(0,)]


def test_creator_of_the_roles_is_no_member(logins: Logins, database: Database) -> None:
    load_rows(database, 200)
    creator, member = owner_of(database, logins), logins.create()
    database.execute(sql.SQL("ALTER ROLE {} CREATEROLE").format(sql.Identifier(creator)))
    engine = unpooled_engine(database.url_as(creator))
    before = state_of(database)
    result = enable(engine)
    assert set(result.created_roles) == set(ROLES)
    with engine.begin() as connection:
        connection.exec_driver_sql(result.attach_statements[0].replace("my_login", member))
    assert enable(engine).created_roles == ()
    assert clients_seen(database, member, "kpi_summary", 7) == {7}
    assert set(disable(engine).dropped_roles) == set(ROLES)
    assert state_of(database) == before
    give_back(database, creator)


def test_owner_without_createrole_gets_the_statements_for_an_administrator(
    logins: Logins, database: Database, server: Server
) -> None:
    creator = owner_of(database, logins)
    engine = unpooled_engine(database.url_as(creator))
    enable_with_administrator(engine, database)
    assert enable(engine).created_roles == ()
    result = disable(engine)
    assert result.dropped_roles == ()
    give_back(database, creator)
    drop_group_roles(server, "syntegra_")


def enable_with_administrator(engine: Engine, database: Database) -> EnableResult:
    """Run what each error prints as an administrator, until `enable` succeeds."""
    for _ in range(3):
        try:
            return enable(engine)
        except TenancyError as error:
            for statement in re.findall(r"(?:CREATE ROLE|GRANT) [^;]*;", str(error)):
                database.execute(sql.SQL(statement))  # type: ignore[arg-type]
    raise AssertionError("what the messages print does not suffice")


def test_owner_without_the_schema_gets_the_grants_for_an_administrator(
    logins: Logins, database: Database, server: Server
) -> None:
    creator = owner_of(database, logins)
    database.execute(
        sql.SQL(
            "REVOKE USAGE ON SCHEMA public FROM PUBLIC; GRANT USAGE, CREATE ON SCHEMA public TO {};"
            "ALTER DATABASE {} OWNER TO CURRENT_USER; REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC"
        ).format(sql.Identifier(creator), sql.Identifier(database.name), sql.Identifier(database.name))
    )
    engine = unpooled_engine(database.url_as(creator))
    enable_with_administrator(engine, database)
    member = logins.create(ROLES.service)
    assert clients_seen(database, member, "kpi_summary", 7) == set()
    disable(engine)
    database.execute(sql.SQL("DROP OWNED BY {}").format(sql.SQL(", ").join(map(sql.Identifier, ROLES))))
    give_back(database, creator)
    drop_group_roles(server, "syntegra_")


def owner_of(database: Database, logins: Logins) -> str:
    """Create a login that owns the database and its tables, and is no superuser."""
    login = logins.create()
    name = sql.Identifier(login)
    database.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(database.name), name))
    for table in (*TABLES, "alembic_version"):
        database.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(sql.Identifier(table), name))
    for kind in ("trend_status", "anomaly_severity"):
        database.execute(sql.SQL("ALTER TYPE {} OWNER TO {}").format(sql.Identifier(kind), name))
    return login


def give_back(database: Database, login: str) -> None:
    """Make the administrator the owner, so that the login can be dropped."""
    database.execute(sql.SQL("REASSIGN OWNED BY {0} TO CURRENT_USER; DROP OWNED BY {0}").format(sql.Identifier(login)))


@pytest.mark.parametrize("kind", GROUP_ROLES)
@pytest.mark.usefixtures("logins")
def test_existing_role_with_rights_is_no_group_role(server: Server, database: Database, kind: str) -> None:
    statement, reason = GROUP_ROLES[kind]
    server.execute(statement)
    with pytest.raises(TenancyError, match=f"exists and {reason}"):
        enable(database.engine)
    assert database.query("SELECT FROM pg_policy") == []


@pytest.mark.parametrize("kind", POLICIES)
def test_policies_of_others_are_named_with_the_statement(logins: Logins, database: Database, kind: str) -> None:
    statement, remedy = POLICIES[kind]
    database.execute(statement)
    with pytest.raises(TenancyError, match=re.escape(remedy)):
        enable(database.engine)
    database.execute(remedy)
    enable(database.engine)
    assert clients_seen(database, logins.create(ROLES.service), "clusters", 7) == set()


def test_role_that_does_not_own_the_tables_gets_the_name_of_the_owner(logins: Logins, database: Database) -> None:
    creator = logins.create()
    database.execute(sql.SQL("ALTER ROLE {} CREATEROLE").format(sql.Identifier(creator)))
    database.execute(sql.SQL("GRANT SELECT ON alembic_version TO {}").format(sql.Identifier(creator)))
    with pytest.raises(TenancyError, match=f"kpi_summary.* belongs? to {database.url.username}"):
        enable(unpooled_engine(database.url_as(creator)))
    give_back(database, creator)
