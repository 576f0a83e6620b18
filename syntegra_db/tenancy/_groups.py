"""The group roles: who may be one, who may be a member, and their creation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.errors import TenancyError
from syntegra_db.group_roles import (
    MEMBERSHIPS,
    describe_role,
    find_parent_revokes,
    find_roles,
    find_unsafe_logins,
    role_fixes,
)
from syntegra_db.sql import catalog_query, execute_raw, quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from syntegra_db.client_policies import GroupRoles

MAY_CREATE_ROLES = catalog_query("""
    SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user
""")
IS_MEMBER = catalog_query(
    """
    SELECT EXISTS (
      SELECT FROM ({memberships}) AS memberships
        JOIN pg_roles AS groups ON groups.oid = roleid JOIN pg_roles AS members ON members.oid = member
      WHERE groups.rolname = :group AND members.rolname = :login
    )
""".replace("{memberships}", MEMBERSHIPS)
)


def create_missing_roles(connection: Connection, roles: GroupRoles) -> list[str]:
    """Create the group roles that are missing, and return them.

    Raises:
        TenancyError: an existing one has attributes or is a member of other roles, or this role may not create roles;
            the message has the statements for an administrator.
    """
    found = find_roles(connection, roles)
    for name, row in found.items():
        if row.attributes or row.parents:
            fixes = role_fixes(name, row.attributes, find_parent_revokes(connection, [name])[name])
            raise TenancyError(
                f"Role {quote(name)} exists and {describe_role(row.attributes, row.parents)}, so it cannot be a group "
                "role of clients' logins; nothing was changed. Choose other names with --prefix, or run this if "
                f"nothing else needs that role as it is: {' '.join(fixes)}"
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


def require_safe_logins(
    connection: Connection, roles: GroupRoles, schema: str | None, tables: Iterable[str], login: str | None = None
) -> None:
    """Raise an error if a policy would not bind a login of the group roles, or only `login`.

    Raises:
        TenancyError: the message names each such login, and why.
    """
    unsafe = find_unsafe_logins(connection, roles, schema, tables)
    reasons = [f"{quote(name)} {reason}" for name, reason, _ in unsafe if login in {None, name}]
    if reasons:
        raise TenancyError(
            f"Not every login of the group roles would see the rows of its client only; nothing was changed. "
            f"{'; '.join(reasons)}. For each login, revoke the group role from it, or remove the reason."
        )


def is_member(connection: Connection, login: str, group: str) -> bool:
    """Return whether `login` itself is a member of the group role."""
    return bool(connection.scalar(IS_MEMBER, {"login": login, "group": group}))
