"""The group roles: who may be one, who may be a member, and their creation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.errors import TenancyError
from syntegra_db.sql import catalog_query, execute_raw, quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from syntegra_db.client_policies import GroupRoles

FIND_ROLES = catalog_query("""
    SELECT rolname::text AS name,
           concat_ws(', ', CASE WHEN rolcanlogin THEN 'LOGIN' END, CASE WHEN rolsuper THEN 'SUPERUSER' END,
             CASE WHEN rolbypassrls THEN 'BYPASSRLS' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
             CASE WHEN rolcreatedb THEN 'CREATEDB' END, CASE WHEN rolreplication THEN 'REPLICATION' END) AS attributes,
           (SELECT string_agg(groups.rolname::text, ', ')
            FROM pg_auth_members JOIN pg_roles AS groups ON groups.oid = roleid
            WHERE member = pg_roles.oid) AS parents
    FROM pg_roles WHERE rolname = ANY (:names)
""")
MAY_CREATE_ROLES = catalog_query("""
    SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user
""")
# Since PostgreSQL 16, who creates a role becomes a member that has no privilege of it: neither INHERIT nor SET.
MEMBERSHIPS = """
    SELECT roleid, member FROM pg_auth_members AS membership
    WHERE coalesce(json_extract_path_text(to_json(membership), 'inherit_option'), 'true') = 'true'
       OR coalesce(json_extract_path_text(to_json(membership), 'set_option'), 'true') = 'true'
"""
# Each login with all roles that it is or can be.
REACHED = """
    WITH RECURSIVE memberships AS ({memberships}), reached (login, role) AS (
      SELECT oid, oid FROM pg_roles WHERE rolcanlogin
      UNION
      SELECT login, roleid FROM reached JOIN memberships ON member = role
    )
""".replace("{memberships}", MEMBERSHIPS)
FIND_LOGINS = catalog_query(
    """{reached}
    SELECT groups.rolname::text AS role, logins.rolname::text AS login
    FROM reached JOIN pg_roles AS groups ON groups.oid = role JOIN pg_roles AS logins ON logins.oid = login
    WHERE groups.rolname = ANY (:groups) AND login <> role
    ORDER BY groups.rolname, logins.rolname
""".replace("{reached}", REACHED)
)
IS_MEMBER = catalog_query(
    """
    SELECT EXISTS (
      SELECT FROM ({memberships}) AS memberships
        JOIN pg_roles AS groups ON groups.oid = roleid JOIN pg_roles AS members ON members.oid = member
      WHERE groups.rolname = :group AND members.rolname = :login
    )
""".replace("{memberships}", MEMBERSHIPS)
)
FIND_UNSAFE_LOGINS = catalog_query(
    """{reached}
    SELECT logins.rolname::text AS login,
           bool_or(roles.rolsuper) AS is_superuser, bool_or(roles.rolbypassrls) AS bypasses,
           bool_or(role IN (
             SELECT relowner FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
             WHERE nspname = :schema AND relname = ANY (:tables)
           )) AS is_owner,
           bool_or(roles.rolname = :bound) AND bool_or(roles.rolname = ANY (:unbound)) AS is_in_both
    FROM reached JOIN pg_roles AS roles ON roles.oid = role JOIN pg_roles AS logins ON logins.oid = login
    GROUP BY login, logins.rolname
    HAVING bool_or(roles.rolname = :bound OR roles.rolname = ANY (:unbound))
    ORDER BY logins.rolname
""".replace("{reached}", REACHED)
)


def create_missing_roles(connection: Connection, roles: GroupRoles) -> list[str]:
    """Create the group roles that are missing, and return them.

    Raises:
        TenancyError: an existing one has attributes or is a member of other roles, or this role may not create roles;
            the message has the statements for an administrator.
    """
    found = {row.name: row for row in connection.execute(FIND_ROLES, {"names": list(roles)})}
    for name, row in found.items():
        if row.attributes or row.parents:
            raise TenancyError(
                f"Role {quote(name)} exists and {_describe(row.attributes, row.parents)}, so it cannot be a group role "
                "of clients' logins; nothing was changed. Take that from it, or choose other names with --prefix."
            )
    missing = [name for name in roles if name not in found]
    statements = [f"CREATE ROLE {quote(name)} NOLOGIN;" for name in missing]
    if missing and not connection.scalar(MAY_CREATE_ROLES):
        raise TenancyError(
            "This role may not create roles; nothing was changed. Ask an administrator to run this, then run this "
            f"again: {' '.join(statements)}"
        )
    for statement in statements:
        execute_raw(connection, statement)
    return missing


def _describe(attributes: str, parents: str | None) -> str:
    parts = [f"has {attributes}"] if attributes else []
    return " and ".join([*parts, *([f"is a member of {parents}"] if parents else [])])


def require_safe_logins(
    connection: Connection, roles: GroupRoles, schema: str | None, tables: Iterable[str], login: str | None = None
) -> None:
    """Raise an error if a policy would not bind a login of the group roles, or only `login`.

    Raises:
        TenancyError: the message names each such login, and why.
    """
    unsafe = find_unsafe_logins(connection, roles, schema, tables)
    reasons = [f"{quote(name)} {reason}" for name, reason in unsafe.items() if login in {None, name}]
    if reasons:
        raise TenancyError(
            f"Not every login of the group roles would see the rows of its client only; nothing was changed. "
            f"{'; '.join(reasons)}. Take the login out of the group role, with REVOKE, or take that from the login."
        )


def find_unsafe_logins(
    connection: Connection, roles: GroupRoles, schema: str | None, tables: Iterable[str]
) -> dict[str, str]:
    """Return the members of the group roles that the policies on `tables` do not bind, with the reason of each."""
    unbound = [name for name in roles if name != roles.bound]
    parameters = {"schema": schema, "tables": list(tables), "bound": roles.bound, "unbound": unbound}
    unsafe = {}
    for row in connection.execute(FIND_UNSAFE_LOGINS, parameters):
        reasons = (
            (row.is_superuser, "is a superuser, or a member of one"),
            (row.bypasses, "has BYPASSRLS, or is a member of a role that has it"),
            (row.is_owner, "owns a table, or is a member of its owner"),
            (row.is_in_both, f"is in {quote(roles.bound)} and in another group role"),
        )
        if found := [reason for applies, reason in reasons if applies]:
            unsafe[row.login] = ", ".join(found)
    return unsafe


def find_logins(connection: Connection, roles: GroupRoles) -> dict[str, list[str]]:
    """Return the logins of each group role, also those that are members of a member."""
    logins: dict[str, list[str]] = {name: [] for name in roles}
    for row in connection.execute(FIND_LOGINS, {"groups": list(roles)}):
        logins[row.role].append(row.login)
    return logins


def is_member(connection: Connection, login: str, group: str) -> bool:
    """Return whether `login` itself is a member of the group role."""
    return bool(connection.scalar(IS_MEMBER, {"login": login, "group": group}))
