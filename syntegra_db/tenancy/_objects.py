"""The table of the bound logins with the mark, its function, and privileges outside the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from syntegra_db.client_policies import (
    BINDINGS_TABLE,
    DATABASE_GRANTS,
    LOOKUP_BODY,
    MARK,
    SCHEMA_GRANTS,
    Grant,
)
from syntegra_db.client_setting import LOOKUP_FUNCTION
from syntegra_db.errors import TenancyError
from syntegra_db.search_path import read_session
from syntegra_db.sql import catalog_query, execute_raw, literal, qualify, qualify_name, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection

    from syntegra_db.client_policies import GroupRoles, Tenancy

FIND_OBJECTS = catalog_query("""
    SELECT to_regclass(:table) IS NOT NULL AS has_table, to_regprocedure(:function) IS NOT NULL AS has_function
""")
# Default privileges of the role can have given others access to a new object.
FOREIGN_PRIVILEGES = """
    SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
    FROM {catalog} CROSS JOIN aclexplode(coalesce({privileges}, acldefault('{kind}', {owner})))
    WHERE oid = CAST(:name AS pg_catalog.{type}) AND grantee <> {owner}
"""
FIND_TABLE_GRANTEES = catalog_query(
    FOREIGN_PRIVILEGES.format(catalog="pg_class", privileges="relacl", kind="r", owner="relowner", type="regclass")
)
FIND_FUNCTION_GRANTEES = catalog_query(
    FOREIGN_PRIVILEGES.format(catalog="pg_proc", privileges="proacl", kind="f", owner="proowner", type="regprocedure")
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
# Other schemas of this database for the same roles.
OTHER_MARKS = catalog_query("""
    SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relname = :table AND nspname <> :schema AND starts_with(obj_description(pg_class.oid, 'pg_class'), :mark)
""")


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


def grant_outer_privileges(connection: Connection, roles: GroupRoles, created: Iterable[str]) -> list[str]:
    """Grant those privileges that are missing, and return their keys; the transaction has `created` some roles.

    What the current role may not grant is enough if PUBLIC has it.

    Raises:
        TenancyError: a role does not have a privilege; the message has the statements for who may grant it.
    """
    granted, statements = [], []
    for outer in outer_grants(connection):
        parameters = {"role": getattr(roles, outer.grant.role), "name": outer.object}
        found = connection.execute(FIND_PRIVILEGE[outer.kind], parameters).one()
        if not found.is_granted and found.may_grant:
            execute_raw(connection, outer.statement(roles))
            granted.append(outer.key)
        elif not found.is_granted and not found.has_privilege:
            statements.append(outer.statement(roles))
    if statements:
        # Their creation is rolled back.
        creations = [f"CREATE ROLE {quote(name)} NOLOGIN;" for name in created]
        raise TenancyError(
            "This role may not grant every privilege that the group roles need; nothing was changed. Ask an "
            f"administrator to run this in the database, then run this again: {' '.join([*creations, *statements])}"
        )
    return granted


def revoke_outer_privileges(connection: Connection, tenancy: Tenancy) -> None:
    """Revoke what `grant_outer_privileges` granted, unless another schema of the database needs it."""
    prefix = MARK + f'{{"prefix": "{tenancy.prefix}"'
    parameters = {"table": BINDINGS_TABLE, "schema": tenancy.schema, "mark": prefix}
    is_shared = bool(connection.scalar(OTHER_MARKS, parameters))
    for outer in outer_grants(connection):
        if outer.key in tenancy.granted and (outer.place == "schema" or not is_shared):
            execute_raw(connection, outer.statement(tenancy.roles, "REVOKE"))


def create_objects(connection: Connection, tenancy: Tenancy, *, is_marked: bool) -> None:
    """Create the table with the mark and its function, or what is missing of them.

    Raises:
        TenancyError: there is a relation of that name without the mark.
    """
    schema = tenancy.schema
    table, function = qualify(schema, BINDINGS_TABLE), f"{qualify(schema, LOOKUP_FUNCTION)}()"
    names = {
        "table": qualify_name(schema, BINDINGS_TABLE),
        "function": f"{qualify_name(schema, LOOKUP_FUNCTION)}()",
    }
    found = connection.execute(FIND_OBJECTS, names).one()
    if not is_marked and (found.has_table or found.has_function):
        raise TenancyError(
            f"{table if found.has_table else function} exists, and `syntegra-db tenancy enable` did not create it. "
            "Nothing was changed. Find out who created it, and drop or rename it."
        )
    if not found.has_table:
        execute_raw(
            connection,
            f"CREATE TABLE {table} (login pg_catalog.name PRIMARY KEY, client_id pg_catalog.int8 NOT NULL)",
        )
        _revoke_from_others(connection, FIND_TABLE_GRANTEES, names["table"], table)
    if not found.has_function:
        body = literal(LOOKUP_BODY.format(table=table))
        execute_raw(
            connection,
            f"CREATE FUNCTION {function} RETURNS pg_catalog.int8 LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER "
            f"SET search_path = pg_catalog, pg_temp AS {body}",
        )
        _revoke_from_others(connection, FIND_FUNCTION_GRANTEES, names["function"], f"FUNCTION {function}")
        execute_raw(connection, f"GRANT EXECUTE ON FUNCTION {function} TO {quote(tenancy.roles.bound)}")


def _revoke_from_others(connection: Connection, query: Any, name: str, target: str) -> None:
    for grantee in connection.scalars(query, {"name": name}).all():
        execute_raw(connection, f"REVOKE ALL ON {target} FROM {grantee}")


def write_mark(connection: Connection, tenancy: Tenancy) -> None:
    """Write what is created and granted to the comment of the table."""
    table = qualify(tenancy.schema, BINDINGS_TABLE)
    execute_raw(connection, f"COMMENT ON TABLE {table} IS {literal(tenancy.mark)}")


def drop_objects(connection: Connection, tenancy: Tenancy) -> None:
    """Drop the table with the mark and its function, which no policy uses any more."""
    execute_raw(connection, f"DROP FUNCTION IF EXISTS {qualify(tenancy.schema, LOOKUP_FUNCTION)}()")
    execute_raw(connection, f"DROP TABLE {qualify(tenancy.schema, BINDINGS_TABLE)}")
