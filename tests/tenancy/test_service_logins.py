"""A service does not start with a login that bypasses the policies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, LiteralString

import pytest
from psycopg import sql
from sqlalchemy import event, text

from support.clients import ADMIN, LOGINS, READER, SERVICE
from syntegra_db import migrations
from syntegra_db.database import create_async_engine, create_engine
from syntegra_db.errors import PoliciesBypassed
from syntegra_db.search_path import with_schema
from syntegra_db.tenancy import async_require_policies, require_policies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL

    from support.servers import Database, Server

OUTSIDER = "syntegra_test_outsider"
OWNER = "syntegra_test_owner"


@pytest.fixture
def roles(server: Server, protected: Database) -> Iterator[None]:
    """Create a login in no group and an owner of tables; they own nothing at the end."""
    with server.role(OUTSIDER), server.role(OWNER):
        yield
        protected.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(OWNER)))
        for role in (OUTSIDER, OWNER):
            protected.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))


def check(url: URL, *, allow_admin: bool = False) -> None:
    engine = create_engine(url)
    try:
        require_policies(engine, allow_admin=allow_admin)
    finally:
        engine.dispose()


@pytest.mark.parametrize("login", LOGINS)
def test_login_of_group_is_accepted(protected: Database, login: str) -> None:
    check(protected.url_as(login), allow_admin=login == ADMIN)


@pytest.mark.usefixtures("roles")
def test_bound_login_is_accepted(protected: Database) -> None:
    protected.execute(sql.SQL("GRANT syntegra_bound TO {}").format(sql.Identifier(OUTSIDER)))
    check(protected.url_as(OUTSIDER))


def test_asyncio_engine_is_checked(protected: Database) -> None:
    async def check_all() -> None:
        for login in (SERVICE, READER, ADMIN):
            engine = create_async_engine(protected.url_as(login))
            try:
                await async_require_policies(engine)
            finally:
                await engine.dispose()

    with pytest.raises(PoliciesBypassed, match="member of syntegra_admin"):
        asyncio.run(check_all())


def test_schema_of_the_engine_is_checked(protected: Database) -> None:
    protected.execute("CREATE SCHEMA other")
    migrations.upgrade(url=protected.engine, schema="other")
    protected.execute(sql.SQL("GRANT USAGE ON SCHEMA other TO {}").format(sql.Identifier(SERVICE)))
    engine = create_engine(protected.url_as(SERVICE))
    try:
        require_policies(with_schema(engine, "public"))
        with pytest.raises(PoliciesBypassed, match="has no policies"):
            require_policies(with_schema(engine, "other"))
    finally:
        engine.dispose()


def test_superuser_is_rejected(protected: Database) -> None:
    with pytest.raises(PoliciesBypassed, match="login postgres: it is a superuser"):
        check(protected.url)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("SELECT 1", "in no group"),
        ("GRANT syntegra_service TO {login}; GRANT syntegra_admin TO {login}", "member of syntegra_admin.*allow_admin"),
        ("GRANT syntegra_service TO {login}; GRANT {owner} TO {login}; ALTER TABLE clusters OWNER TO {owner}", "owner"),
        ("GRANT syntegra_service TO {login}; ALTER TABLE clusters OWNER TO {login}", "owns the table clusters"),
        ("GRANT syntegra_service TO {login}; ALTER ROLE {login} BYPASSRLS", "it has BYPASSRLS"),
        (
            "GRANT syntegra_service TO {login}; ALTER ROLE {owner} BYPASSRLS; GRANT {owner} TO {login}",
            "can become syntegra_test_owner, which has BYPASSRLS.*REVOKE",
        ),
        ("GRANT syntegra_service TO {login}; ALTER ROLE {owner} SUPERUSER; GRANT {owner} TO {login}", "is a superuser"),
        ("GRANT syntegra_service TO {login}; ALTER ROLE {login} SET row_security = off", "row_security is off"),
        ("GRANT syntegra_service TO {login}; ALTER TABLE clusters DISABLE ROW LEVEL SECURITY", "clusters has no"),
        ("GRANT syntegra_service TO {login}; ALTER ROLE {login} SET search_path = pg_catalog", "leads to no table"),
        ("GRANT syntegra_service, syntegra_bound TO {login}", "syntegra_bound and of syntegra_service.*verify"),
        (
            "GRANT syntegra_reader TO {owner}; GRANT syntegra_bound, {owner} TO {login}",
            "syntegra_bound and of syntegra_reader",
        ),
    ],
)
@pytest.mark.usefixtures("roles")
def test_login_that_bypasses_policies_is_rejected(protected: Database, statement: LiteralString, reason: str) -> None:
    protected.execute(sql.SQL(statement).format(login=sql.Identifier(OUTSIDER), owner=sql.Identifier(OWNER)))
    with pytest.raises(PoliciesBypassed, match=reason) as error:
        check(protected.url_as(OUTSIDER))
    assert OUTSIDER in str(error.value)


# Another function that the policy or the search_path can name.
OTHER_SETTING = (
    "CREATE FUNCTION public.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT '8' $$; "
    "GRANT USAGE ON SCHEMA public TO PUBLIC; "
)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE POLICY everyone ON clusters USING (true)",
        "CREATE POLICY a ON clusters FOR SELECT TO syntegra_service USING (client_id = 8)",
        "CREATE POLICY client_all ON clusters TO {owner} USING (true); GRANT {owner} TO {login}",
        "ALTER POLICY admin_all ON clusters TO PUBLIC",
        "ALTER POLICY client_select ON clusters USING (client_id IS NOT NULL)",
        "ALTER POLICY client_update ON clusters WITH CHECK (true)",
        "ALTER POLICY client_insert ON clusters TO PUBLIC WITH CHECK (client_id IN (7, 8))",
        OTHER_SETTING + "ALTER POLICY client_select ON clusters"
        " USING (client_id = NULLIF(public.current_setting('syntegra.client_id', true), '')::bigint)",
    ],
)
@pytest.mark.usefixtures("roles")
def test_policy_that_shows_other_rows_is_rejected(protected: Database, statement: LiteralString) -> None:
    names = {"login": sql.Identifier(OUTSIDER), "owner": sql.Identifier(OWNER)}
    protected.execute(sql.SQL("GRANT syntegra_service TO {login}").format(**names))
    check(protected.url_as(OUTSIDER))
    protected.execute(sql.SQL(statement).format(**names))
    with pytest.raises(PoliciesBypassed, match=r"policy \w+ of clusters .*`syntegra-db verify`"):
        check(protected.url_as(OUTSIDER))


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE POLICY auditors ON clusters TO {owner} USING (true)",
        "CREATE POLICY only_recent ON clusters AS RESTRICTIVE USING (client_id > 0)",
        "ALTER POLICY client_select ON clusters TO syntegra_service, {owner}",
        OTHER_SETTING + "ALTER ROLE {login} SET search_path = public, pg_catalog",
    ],
)
@pytest.mark.usefixtures("roles")
def test_what_shows_the_login_no_other_rows_is_accepted(protected: Database, statement: LiteralString) -> None:
    names = {"login": sql.Identifier(OUTSIDER), "owner": sql.Identifier(OWNER)}
    protected.execute(sql.SQL("GRANT syntegra_service TO {login}").format(**names))
    protected.execute(sql.SQL(statement).format(**names))
    check(protected.url_as(OUTSIDER))


def test_check_takes_one_statement_and_restores_the_search_path(protected: Database) -> None:
    engine = create_engine(protected.url_as(SERVICE), pool_size=1, max_overflow=0)
    statements: list[str] = []
    try:
        with engine.connect() as connection:
            path = connection.scalar(text("SHOW search_path"))
        event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
        require_policies(engine)
        assert len(statements) == 1
        with engine.connect() as connection:
            assert connection.scalar(text("SHOW search_path")) == path
    finally:
        engine.dispose()
