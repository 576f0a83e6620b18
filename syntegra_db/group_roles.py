"""The group roles of `syntegra-db tenancy` on the server: who is in them, and what they may use besides the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from syntegra_db.client_policies import BINDINGS_TABLE, DATABASE_GRANTS, SCHEMA_GRANTS, Grant
from syntegra_db.search_path import read_session
from syntegra_db.sql import catalog_query, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from sqlalchemy import Connection, Row

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
# The statement that ends the membership `edge` in `groups`. Since PostgreSQL 16, it must name who granted it.
REVOKE_MEMBERSHIP = """
    format('REVOKE %I FROM %I%s;', groups.rolname, pg_get_userbyid(edge.member),
      CASE WHEN edge.grantor <> 10 AND current_setting('server_version_num')::pg_catalog.int4 >= 160000
        THEN format(' GRANTED BY %I', pg_get_userbyid(edge.grantor)) END)
"""
# Those that end a membership of the login, or of a role that it is or can be, in the groups that follow.
REVOKES_FROM = """ARRAY(
             SELECT DISTINCT {revoke} FROM reached AS own JOIN pg_auth_members AS edge ON edge.member = own.role
               JOIN pg_roles AS groups ON groups.oid = edge.roleid
             WHERE own.login = reached.login AND groups.rolname = """.replace("{revoke}", REVOKE_MEMBERSHIP)
FIND_PARENTS = catalog_query(
    """
    SELECT {revoke} FROM pg_auth_members AS edge JOIN pg_roles AS groups ON groups.oid = edge.roleid
    WHERE pg_get_userbyid(edge.member) = :name ORDER BY 1
""".replace("{revoke}", REVOKE_MEMBERSHIP)
)
FIND_LOGINS = catalog_query(
    """{reached}
    SELECT groups.rolname::text AS role, logins.rolname::text AS login
    FROM reached JOIN pg_roles AS groups ON groups.oid = role JOIN pg_roles AS logins ON logins.oid = login
    WHERE groups.rolname = ANY (:groups) AND login <> role
    ORDER BY groups.rolname, logins.rolname
""".replace("{reached}", REACHED)
)
# ADMIN OPTION lets a role add members, itself too, but a role that is not a superuser adds none to a superuser.
REVOKE_ADMIN = REVOKE_MEMBERSHIP.replace("'REVOKE %I", "'REVOKE ADMIN OPTION FOR %I")
# Who has these reads or writes rows where no policy is: in statistics, TOAST tables, partitions, `bound_logins`, or the
# files of the server. `pg_maintain` shows no row.
PREDEFINED_ROLES = (
    "pg_read_all_data",
    "pg_write_all_data",
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_execute_server_program",
)
# Before PostgreSQL 16, CREATEROLE lets a role add members to any other that is no superuser.
JOINS_ANY_ROLE = "rolcreaterole AND current_setting('server_version_num')::pg_catalog.int4 < 160000"
# `possible` are the roles that a login of a group is, can be, or can make itself a member of. Those that administer a
# group role are found as such.
FIND_UNSAFE_LOGINS = catalog_query(
    """{reached}, owners (role) AS (
      SELECT relowner FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
      WHERE nspname = :schema AND relname = ANY (:tables)
    ), possible (login, role) AS (
      SELECT login, role FROM reached WHERE login IN (
        SELECT login FROM reached JOIN pg_roles ON oid = role WHERE rolname = ANY (:groups)
      )
      UNION
      SELECT login, edge.roleid FROM possible JOIN pg_auth_members AS edge ON edge.member = role
        JOIN pg_roles ON pg_roles.oid = edge.roleid
      WHERE admin_option AND NOT rolsuper AND rolname <> ALL (:groups)
         OR EXISTS (SELECT FROM memberships WHERE roleid = edge.roleid AND memberships.member = edge.member)
    )
    SELECT logins.rolname::text AS login, bool_or(roles.rolname = :admin) AS is_admin,
           bool_or(roles.rolsuper) AS is_superuser, bool_or(role IN (SELECT role FROM owners)) AS is_owner,
           bool_or(roles.rolbypassrls) AS bypasses, bool_or(roles.rolreplication) AS replicates,
           bool_or(roles.{joins_any_role}) AS joins_any_role,
           logins.rolbypassrls AS bypasses_itself, logins.rolreplication AS replicates_itself,
           logins.{joins_any_role} AS joins_any_role_itself,
           bool_or(roles.rolname = :bound) AND bool_or(roles.rolname = ANY (:unbound)) AS is_in_both,
           string_agg(quote_ident(roles.rolname), ', ' ORDER BY roles.rolname)
             FILTER (WHERE roles.rolname = ANY (:predefined)) AS predefined,
           (SELECT string_agg(DISTINCT quote_ident(groups.rolname), ', ') FROM reached AS own
              JOIN pg_auth_members AS edge ON edge.member = own.role JOIN pg_roles AS groups ON groups.oid = edge.roleid
            WHERE own.login = reached.login AND admin_option AND groups.rolname = ANY (:groups)) AS administers,
           (SELECT string_agg(DISTINCT quote_ident(others.rolname), ', ')
            FROM possible JOIN pg_roles AS others ON others.oid = possible.role
            WHERE possible.login = reached.login AND (
              others.rolbypassrls OR others.rolreplication OR others.{joins_any_role} OR others.rolname = :admin
              OR others.rolname = ANY (:predefined) OR possible.role IN (SELECT role FROM owners)
              OR others.rolname = ANY (:unbound) AND bool_or(roles.rolname = :bound)
            ) AND NOT EXISTS (
              SELECT FROM reached AS own WHERE own.login = possible.login AND own.role = possible.role
            )) AS joinable,
           {revokes_from}ANY (:unbound) ORDER BY 1) AS unbound_revokes,
           {revokes_from}:bound ORDER BY 1) AS bound_revokes,
           {revokes_from}ANY (:predefined) ORDER BY 1) AS predefined_revokes,
           {revoke_admin_from}ANY (:groups) AND admin_option ORDER BY 1) AS admin_revokes
    FROM reached JOIN pg_roles AS roles ON roles.oid = role JOIN pg_roles AS logins ON logins.oid = login
    GROUP BY login, logins.rolname, logins.rolbypassrls, logins.rolreplication, logins.rolcreaterole
    HAVING bool_or(roles.rolname = ANY (:groups))
    ORDER BY logins.rolname
""".replace("{reached}", REACHED)
    .replace("{revokes_from}", REVOKES_FROM)
    .replace("{revoke_admin_from}", REVOKES_FROM.replace(REVOKE_MEMBERSHIP, REVOKE_ADMIN))
    .replace("{joins_any_role}", JOINS_ANY_ROLE)
)
# Whether the role has each privilege by name, by whatever means, and whether the current role may grant it.
FIND_PRIVILEGE = {
    "SCHEMA": catalog_query("""
        SELECT EXISTS (SELECT FROM aclexplode(nspacl) WHERE privilege_type = 'USAGE'
                       AND pg_get_userbyid(grantee) = :role) AS is_granted,
               has_schema_privilege(:role, oid, 'USAGE') AS has_privilege,
               pg_has_role(nspowner, 'USAGE') OR has_schema_privilege(oid, 'USAGE WITH GRANT OPTION') AS may_grant
        FROM pg_namespace WHERE nspname = :name
    """),
    "DATABASE": catalog_query("""
        SELECT EXISTS (SELECT FROM aclexplode(datacl) WHERE privilege_type = 'TEMPORARY'
                       AND pg_get_userbyid(grantee) = :role) AS is_granted,
               has_database_privilege(:role, oid, 'TEMPORARY') AS has_privilege,
               pg_has_role(datdba, 'USAGE') OR has_database_privilege(oid, 'TEMPORARY WITH GRANT OPTION') AS may_grant
        FROM pg_database WHERE datname = :name
    """),
}


class UnsafeLogin(NamedTuple):
    """A login of a group role that the policies do not bind; each of `fixes` is a statement that ends that."""

    name: str
    reason: str
    fixes: tuple[str, ...]


class OuterGrant(NamedTuple):
    """A privilege on a schema or the database; `place` is how the mark names the object."""

    place: str
    kind: str
    object: str
    grant: Grant

    @property
    def key(self) -> str:
        """How the mark names it."""
        return f"{self.place}.{self.grant.role}"

    def statement(self, roles: GroupRoles, action: str = "GRANT") -> str:
        """Return the statement that grants it, or revokes it for REVOKE."""
        preposition = "TO" if action == "GRANT" else "FROM"
        role = quote(getattr(roles, self.grant.role))
        return f"{action} {self.grant.privilege} ON {self.kind} {quote(self.object)} {preposition} {role};"


def outer_grants(connection: Connection) -> Iterator[OuterGrant]:
    """Yield the privileges on the schemas of the tables and of the extension `vector`, and on the database."""
    session = read_session(connection)
    places = [("schema", session.schema), ("extension", session.extension_schema)]
    for place, name in places:
        if name and (place == "schema" or name != session.schema):
            yield from (OuterGrant(place, "SCHEMA", name, grant) for grant in SCHEMA_GRANTS)
    yield from (OuterGrant("database", "DATABASE", session.database, grant) for grant in DATABASE_GRANTS)


def find_outer_privilege(connection: Connection, roles: GroupRoles, outer: OuterGrant) -> Row[Any]:
    """Return `is_granted` and `has_privilege` of the existing group role, and `may_grant` of the current role."""
    parameters = {"role": getattr(roles, outer.grant.role), "name": outer.object}
    return connection.execute(FIND_PRIVILEGE[outer.kind], parameters).one()


def find_roles(connection: Connection, roles: GroupRoles) -> dict[str, Row[Any]]:
    """Return those of the group roles that exist, with their `attributes` and `parents` as text."""
    return {row.name: row for row in connection.execute(FIND_ROLES, {"names": list(roles)})}


def find_parent_revokes(connection: Connection, names: Iterable[str]) -> dict[str, list[str]]:
    """Return, for each role, the statements that take it out of the roles that it is a member of."""
    return {name: list(connection.scalars(FIND_PARENTS, {"name": name})) for name in names}


def describe_role(attributes: str, parents: str | None) -> str:
    """Return what a role has that no group role may have, such as `has LOGIN and is a member of x`."""
    parts = [f"has {attributes}"] if attributes else []
    return " and ".join([*parts, *([f"is a member of {parents}"] if parents else [])])


def role_fixes(name: str, attributes: str, parent_revokes: Iterable[str]) -> list[str]:
    """Return the statements that take from a role what `describe_role` says that it has."""
    removed = " ".join(f"NO{attribute}" for attribute in attributes.split(", ") if attribute)
    return [*([f"ALTER ROLE {quote(name)} {removed};"] if removed else []), *parent_revokes]


def find_unsafe_logins(
    connection: Connection, roles: GroupRoles, schema: str | None, tables: Iterable[str]
) -> list[UnsafeLogin]:
    """Return the members of the group roles that the policies on `tables` and `bound_logins` do not bind."""
    unbound = [name for name in roles if name != roles.bound]
    parameters = {
        "schema": schema,
        "tables": [*tables, BINDINGS_TABLE],
        "bound": roles.bound,
        "unbound": unbound,
        "groups": list(roles),
        "admin": roles.admin,
        "predefined": list(PREDEFINED_ROLES),
    }
    return [
        UnsafeLogin(row.login, ", ".join(reasons), tuple(_fixes(row)))
        for row in connection.execute(FIND_UNSAFE_LOGINS, parameters)
        if (reasons := [*_reasons(row, roles)])
    ]


def _reasons(row: Row[Any], roles: GroupRoles) -> Iterator[str]:
    always = (
        (row.is_superuser, "is a superuser, or a member of one"),
        (row.bypasses, "has BYPASSRLS, or is a member of a role that has it"),
        (row.is_owner, "owns a table, or is a member of its owner"),
        (row.is_in_both, f"is in {quote(roles.bound)} and in another group role"),
    )
    # Of a login that does not see all rows anyway.
    unless_admin = (
        (row.replicates, "has REPLICATION, or is a member of a role that has it"),
        (row.joins_any_role, "has CREATEROLE, or is a member of a role that has it, so it can join other roles"),
        (row.predefined, f"is a member of {row.predefined}"),
        (row.administers, f"has ADMIN OPTION on {row.administers}, so it can add members"),
        (row.joinable, f"can make itself a member of {row.joinable} by ADMIN OPTION"),
    )
    for applies, reason in (*always, *(() if row.is_admin else unless_admin)):
        if applies:
            yield reason


def _fixes(row: Row[Any]) -> Sequence[str]:
    attributes = {
        "BYPASSRLS": (row.bypasses, row.bypasses_itself),
        "REPLICATION": (row.replicates and not row.is_admin, row.replicates_itself),
        "CREATEROLE": (row.joins_any_role and not row.is_admin, row.joins_any_role_itself),
    }
    is_indirect = any(has and not itself for has, itself in attributes.values())
    if row.is_superuser or row.is_owner or is_indirect or (row.joinable and not row.is_admin):
        return [*row.unbound_revokes, *row.bound_revokes]
    removed = " ".join(f"NO{name}" for name, (has, _) in attributes.items() if has)
    return [
        *([f"ALTER ROLE {quote(row.login)} {removed};"] if removed else []),
        *([] if row.is_admin else [*row.predefined_revokes, *row.admin_revokes]),
        *(row.unbound_revokes if row.is_in_both else []),
    ]


def find_logins(connection: Connection, roles: GroupRoles) -> dict[str, list[str]]:
    """Return the logins of each group role, also those that are members of a member."""
    logins: dict[str, list[str]] = {name: [] for name in roles}
    for row in connection.execute(FIND_LOGINS, {"groups": list(roles)}):
        logins[row.role].append(row.login)
    return logins
