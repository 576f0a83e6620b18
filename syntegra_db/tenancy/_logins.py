"""The check, at the start of a service, that the policies apply to its login."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from syntegra_db.client_policies import POLICIES, Tenancy
from syntegra_db.client_setting import LOOKUP_FUNCTION
from syntegra_db.errors import PoliciesBypassed
from syntegra_db.group_roles import REACHED
from syntegra_db.installed_policies import COLUMNS, LOOKUP_NAME, InstalledPolicy, declared_policy
from syntegra_db.search_path import CATALOG_ONLY, schema_of
from syntegra_db.sql import catalog_query, quote, quote_name
from syntegra_db.tenancy._criteria import client_tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Engine, Row
    from sqlalchemy.ext.asyncio import AsyncEngine

# The roles that the login is or can be: with SET ROLE, also without their privileges. The tables are found with the
# search_path of the session, and the policies are printed with `pg_catalog`, which lasts until the transaction ends.
# Each policy of a table is a row. A table without policies is one, and so is a session without tables.
POLICIES_FOR_LOGIN = catalog_query(f"""{REACHED}
    , own (role) AS (
      SELECT role FROM reached JOIN pg_roles ON pg_roles.oid = login WHERE rolname = session_user
      UNION SELECT oid FROM pg_roles WHERE rolname IN (session_user, current_user)
    ), tables AS MATERIALIZED (
      SELECT oid, relname, relnamespace, relowner, relrowsecurity FROM pg_class WHERE relname = ANY (:names) AND CASE
        WHEN CAST(:schema AS pg_catalog.text) IS NULL THEN pg_table_is_visible(oid)
        ELSE relnamespace = to_regnamespace(:schema) AND has_schema_privilege(relnamespace, 'USAGE')
      END
    ), path AS MATERIALIZED (
      SELECT set_config('search_path', '{CATALOG_ONLY}', true) FROM (SELECT count(*) FROM tables) AS found
    )
    SELECT session_user AS login, current_setting('row_security') AS row_security,
           (SELECT min(rolname::text) FROM own JOIN pg_roles ON pg_roles.oid = role WHERE rolsuper) AS superuser,
           (SELECT min(rolname::text) FROM own JOIN pg_roles ON pg_roles.oid = role WHERE rolbypassrls) AS bypassing,
           relname::text AS table_name, relrowsecurity AS is_enabled, pg_get_userbyid(relowner)::text AS owner,
           relowner IN (SELECT role FROM own) AS is_owned, {COLUMNS},
           (SELECT min(pg_get_userbyid(role)::text) FROM own WHERE role = ANY (polroles)) AS member_of,
           {LOOKUP_NAME.format(schema="nspname")} AS lookup
    FROM path LEFT JOIN tables ON true LEFT JOIN pg_namespace ON pg_namespace.oid = relnamespace
      LEFT JOIN pg_policy ON polrelid = tables.oid
    ORDER BY relname, polname
""")  # noqa: S608  constants
DECLARED = {policy.name: policy for policy in POLICIES}
PUBLIC = ""


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
    names = client_tables()
    # The models' tables are there if the engine translates their schema, and not where the search_path leads.
    schema = schema_of(connection)
    parameters = {"names": list(names), "schema": schema and quote_name(schema), "lookup": LOOKUP_FUNCTION}
    rows = connection.execute(POLICIES_FOR_LOGIN, parameters).all()
    problem = next(_problems(rows, names, allow_admin=allow_admin), None)
    if problem is not None:
        raise PoliciesBypassed(f"The policies do not apply to the login {quote(rows[0].login)}: {problem}")


def _problems(rows: Sequence[Row[Any]], names: frozenset[str], *, allow_admin: bool) -> Iterator[str]:
    """Yield what lets the login see rows of other clients, or none at all, each with what to do."""
    yield from _problems_of_login(rows[0])
    missing = sorted(names.difference(row.table_name for row in rows))
    if missing:
        yield (
            f"its search_path, or the schema of the engine, leads to no table {missing[0]}. Run `syntegra-db upgrade`, "
            "or correct the search_path, the schema, the database, or the login's USAGE of the schema."
        )
    for _, policies in groupby(rows, lambda row: row.table_name):
        yield from _problems_of_table(list(policies), allow_admin=allow_admin)


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


def _problems_of_table(rows: Sequence[Row[Any]], *, allow_admin: bool) -> Iterator[str]:
    table, name, user = rows[0], quote(rows[0].table_name), quote(rows[0].login)
    if table.is_owned:
        yield (
            f"it owns the table {name}, or can become its owner {quote(table.owner)}. Use another login for "
            "services; the owner is for migrations."
        )
    if not table.is_enabled or table.name is None:
        yield f"the table {name} has no policies, or they are not enabled. Run `syntegra-db tenancy enable`."
    # The group by which the login sees rows: of the client that is set, of the one that it is bound to, or of all.
    groups: dict[str, str] = {}
    for row in rows:
        if row.is_permissive and (row.member_of is not None or PUBLIC in row.roles):
            key = _key(row)
            if key is None:
                yield (
                    f"the policy {quote(row.name)} of {name} is not one that `syntegra-db tenancy enable` makes, and "
                    "can show it rows of other clients. `syntegra-db verify` prints the statement that corrects it."
                )
                return
            groups.setdefault(key, row.member_of)
    yield from _problems_of_groups(groups, name, user, allow_admin=allow_admin)


def _problems_of_groups(groups: dict[str, str], table: str, user: str, *, allow_admin: bool) -> Iterator[str]:
    bound = groups.pop("bound", None)
    if "admin" in groups and not allow_admin:
        admin = quote(groups["admin"])
        yield (
            f"it is a member of {admin}, which sees the rows of all clients. Execute REVOKE {admin} FROM {user}, or "
            "call require_policies with allow_admin=True."
        )
    if bound is not None and groups:
        yield (
            f"it is a member of {quote(bound)} and of {quote(min(groups.values()))}, so it sees the rows of two "
            "clients. `syntegra-db verify` prints the statement that takes it out of one."
        )
    if bound is None and not groups:
        yield (
            f"it is in no group that the policies of {table} name, so it sees no row. Grant it the group of services "
            "or of readers; `syntegra-db tenancy status` names them."
        )


def _key(row: Row[Any]) -> str | None:
    """Return the first group of the declared policy that a row has, with whatever roles; None if there is none."""
    policy, found = DECLARED.get(row.name), InstalledPolicy.of(row)
    if policy is None or PUBLIC in found.roles:
        return None
    declared = declared_policy(policy, Tenancy(None), row.lookup)
    return policy.roles[0] if found._replace(roles=declared.roles) == declared else None
