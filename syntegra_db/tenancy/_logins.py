"""The check, at the start of a service, that the policies apply to its login."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from syntegra_db.errors import PoliciesBypassed
from syntegra_db.group_roles import REACHED
from syntegra_db.search_path import schema_of
from syntegra_db.sql import catalog_query, quote, quote_name
from syntegra_db.tenancy._criteria import client_models

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Engine, Row
    from sqlalchemy.ext.asyncio import AsyncEngine

ADMIN_POLICY = "admin_all"
# The roles that the login is or can be: with SET ROLE, also without their privileges.
OWN_ROLES = """{reached}
    , own (role) AS (
      SELECT role FROM reached JOIN pg_roles ON pg_roles.oid = login WHERE rolname = session_user
      UNION SELECT oid FROM pg_roles WHERE rolname IN (session_user, current_user)
    )
""".replace("{reached}", REACHED)
LOGIN = catalog_query(
    """{own_roles}
    SELECT session_user AS login, current_setting('row_security') AS row_security,
      (SELECT min(rolname::text) FROM own JOIN pg_roles ON pg_roles.oid = role WHERE rolsuper) AS superuser,
      (SELECT min(rolname::text) FROM own JOIN pg_roles ON pg_roles.oid = role WHERE rolbypassrls) AS bypassing
""".replace("{own_roles}", OWN_ROLES)
)
TABLES = catalog_query(
    """{own_roles}
    SELECT relname::text AS name, relrowsecurity AS enabled, pg_get_userbyid(relowner)::text AS owner,
      relowner IN (SELECT role FROM own) AS owned,
      EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid) AS has_policies,
      (SELECT min(pg_get_userbyid(role)::text) FROM pg_policy JOIN own ON role = ANY (polroles)
       WHERE polrelid = pg_class.oid AND polname <> :admin) AS member_of,
      (SELECT min(pg_get_userbyid(role)::text) FROM pg_policy JOIN own ON role = ANY (polroles)
       WHERE polrelid = pg_class.oid AND polname = :admin) AS admin_through
    FROM pg_class WHERE relname = ANY (:names) AND CASE
      WHEN CAST(:schema AS pg_catalog.text) IS NULL THEN pg_table_is_visible(oid)
      ELSE relnamespace = to_regnamespace(:schema) AND has_schema_privilege(relnamespace, 'USAGE')
    END ORDER BY relname
""".replace("{own_roles}", OWN_ROLES)
)


def require_policies(engine: Engine, *, allow_admin: bool = False) -> None:
    """Raise an error unless the policies restrict the login of `engine` to the client that a session sets.

    Call it at the start of a service.

    Args:
        engine: the engine of the service.
        allow_admin: accept a login of the administrators' group, which sees the rows of all clients.

    Raises:
        PoliciesBypassed: the login can read the rows of all clients, or is in no group, or a table has no policies.
    """
    with engine.connect() as connection:
        _check(connection, allow_admin=allow_admin)


async def async_require_policies(engine: AsyncEngine, *, allow_admin: bool = False) -> None:
    """Do the same as `require_policies` under asyncio: same errors."""
    async with engine.connect() as connection:
        await connection.run_sync(lambda synchronous: _check(synchronous, allow_admin=allow_admin))


def _check(connection: Connection, *, allow_admin: bool) -> None:
    names = [model.__table__.name for model in client_models()]
    login = connection.execute(LOGIN).one()
    # The models' tables are there if the engine translates their schema, and not where the search_path leads.
    schema = schema_of(connection)
    parameters = {"names": names, "admin": ADMIN_POLICY, "schema": schema and quote_name(schema)}
    tables = connection.execute(TABLES, parameters).all()
    problem = next(_problems(login, tables, names, allow_admin=allow_admin), None)
    if problem is not None:
        raise PoliciesBypassed(f"The policies do not apply to the login {quote(login.login)}: {problem}")


def _problems(login: Row[Any], tables: Sequence[Row[Any]], names: list[str], *, allow_admin: bool) -> Iterator[str]:
    """Yield what lets the login see rows of other clients, or none at all, each with what to do."""
    yield from _problems_of_login(login)
    missing = sorted(set(names).difference(table.name for table in tables))
    if missing:
        yield (
            f"its search_path, or the schema of the engine, leads to no table {missing[0]}. Run `syntegra-db upgrade`, "
            "or correct the search_path, the schema, the database, or the login's USAGE of the schema."
        )
    for table in tables:
        yield from _problems_of_table(table, login, allow_admin=allow_admin)


def _problems_of_login(login: Row[Any]) -> Iterator[str]:
    for role, reason in ((login.superuser, "is a superuser"), (login.bypassing, "has BYPASSRLS")):
        if role == login.login:
            yield f"it {reason}. Use another login, without attributes, of the group of services."
        elif role is not None:
            yield (
                f"it can become {quote(role)}, which {reason}. Use another login, or execute REVOKE {quote(role)} FROM "
                f"{quote(login.login)}."
            )
    if login.row_security != "on":
        yield (
            "row_security is off for it, so each statement on these tables fails. Execute "
            f"ALTER ROLE {quote(login.login)} RESET row_security, and remove the setting from the database and the URL."
        )


def _problems_of_table(table: Row[Any], login: Row[Any], *, allow_admin: bool) -> Iterator[str]:
    name, user = quote(table.name), quote(login.login)
    if table.owned:
        yield (
            f"it owns the table {name}, or can become its owner {quote(table.owner)}. Use another login for "
            "services; the owner is for migrations."
        )
    if not table.enabled or not table.has_policies:
        yield f"the table {name} has no policies, or they are not enabled. Run `syntegra-db tenancy enable`."
    if table.admin_through is not None and not allow_admin:
        yield (
            f"it is a member of {quote(table.admin_through)}, which sees the rows of all clients. Execute REVOKE "
            f"{quote(table.admin_through)} FROM {user}, or call require_policies with allow_admin=True."
        )
    if table.member_of is None and table.admin_through is None:
        yield (
            f"it is in no group that the policies of {name} name, so it sees no row. Grant it the group of services or "
            "of readers; `syntegra-db tenancy status` names them."
        )
