"""The table of the bound logins with the mark, its function, and privileges outside the tables."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from syntegra_db.client_policies import BINDINGS_TABLE, FIND_LOOKUP_OVERLOAD, MARK_WITH_PREFIX, parse_mark
from syntegra_db.client_setting import LOOKUP_FUNCTION
from syntegra_db.errors import TenancyError
from syntegra_db.group_roles import find_outer_privilege, find_roles, outer_grants
from syntegra_db.search_path import read_session
from syntegra_db.sql import catalog_query, execute_raw, literal, qualify, qualify_name, quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from syntegra_db.client_policies import GroupRoles, Tenancy
    from syntegra_db.group_roles import OuterGrant

FIND_OBJECTS = catalog_query(f"""
    SELECT to_regclass(:table) IS NOT NULL AS has_table, to_regtype(:table) IS NOT NULL AS has_type,
           to_regprocedure(:function) IS NOT NULL AS has_function,
           (SELECT bool_and(is_plain AND (rolsuper OR rolname = current_user)) FROM (
              SELECT relowner AS owner, relkind = 'r' AS is_plain FROM pg_class WHERE oid = to_regclass(:table)
              UNION ALL
              SELECT proowner, true FROM pg_proc WHERE oid = to_regprocedure(:function)
            ) AS objects JOIN pg_roles ON pg_roles.oid = owner) AS is_own,
           ({FIND_LOOKUP_OVERLOAD.format(schema=":schema", name=":lookup")}) AS overload
""")  # noqa: S608  constants
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
# Other schemas of this database for the same roles; first those whose mark this role may write.
OTHER_MARKS = catalog_query("""
    SELECT nspname::text AS schema, obj_description(pg_class.oid, 'pg_class') AS mark,
           pg_has_role(relowner, 'USAGE') AS is_own
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relname = :table AND nspname <> :schema AND starts_with(obj_description(pg_class.oid, 'pg_class'), :mark)
    ORDER BY 3 DESC, 1
""")


def grant_outer_privileges(connection: Connection, roles: GroupRoles, created: Iterable[str]) -> list[str]:
    """Grant those privileges that are missing, and return their keys; the transaction has `created` some roles.

    What the current role may not grant is enough if PUBLIC has it.

    Raises:
        TenancyError: a role does not have a privilege; the message has the statements for who may grant it.
    """
    granted, statements = [], []
    for outer in outer_grants(connection):
        found = find_outer_privilege(connection, roles, outer)
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
    """Revoke what `grant_outer_privileges` granted, or leave it to another schema of the database that needs it.

    Its mark then gets that, and the roles that `tenancy` created, so that `disable` removes them there.
    """
    mark = MARK_WITH_PREFIX.format(prefix=tenancy.prefix)
    parameters = {"table": BINDINGS_TABLE, "schema": tenancy.schema, "mark": mark}
    other = connection.execute(OTHER_MARKS, parameters).first()
    # REVOKE from a role that was dropped is an error.
    existing = find_roles(connection, tenancy.roles)
    kept = []
    for outer in outer_grants(connection):
        if outer.key in tenancy.granted and getattr(tenancy.roles, outer.grant.role) in existing:
            place = None if other is None else _place_in(connection, other.schema, outer)
            if place:
                kept.append(outer._replace(place=place).key)
            else:
                execute_raw(connection, outer.statement(tenancy.roles, "REVOKE"))
    if other is not None and other.is_own:
        remaining = parse_mark(other.schema, other.mark)
        created, granted = ((*remaining.created_roles, *tenancy.created_roles), (*remaining.granted, *kept))
        write_mark(
            connection,
            replace(remaining, created_roles=tuple(dict.fromkeys(created)), granted=tuple(dict.fromkeys(granted))),
        )


def _place_in(connection: Connection, schema: str, outer: OuterGrant) -> str | None:
    """Return what the object of a privilege is for the tables in `schema`, or None if they do not need it."""
    if outer.kind == "DATABASE":
        return outer.place
    if outer.object == schema:
        return "schema"
    return "extension" if outer.object == read_session(connection).extension_schema else None


def create_objects(connection: Connection, tenancy: Tenancy, *, is_marked: bool, is_known: bool) -> None:
    """Create the table with the mark and its function, or what is missing of them.

    `is_known` means that the policies are there: then objects of this role or a superuser have lost the mark.

    Raises:
        TenancyError: there is a relation or type of that name without the mark, or the function.
    """
    schema = tenancy.schema
    table, function = qualify(schema, BINDINGS_TABLE), f"{qualify(schema, LOOKUP_FUNCTION)}()"
    names = {
        "table": qualify_name(schema, BINDINGS_TABLE),
        "function": f"{qualify_name(schema, LOOKUP_FUNCTION)}()",
    }
    found = connection.execute(FIND_OBJECTS, {**names, "schema": schema, "lookup": LOOKUP_FUNCTION}).one()
    is_foreign = not is_marked and not (is_known and found.is_own)
    if is_foreign and (found.has_table or found.has_function):
        raise TenancyError(
            f"{table if found.has_table else function} exists, and `syntegra-db tenancy enable` did not create it. "
            "Nothing was changed. Find out who created it, and drop or rename it."
        )
    if found.overload is not None:
        raise TenancyError(
            f"The function {found.overload} exists and can be called without arguments, so the policies cannot name "
            f"{function}. Nothing was changed. Find out who created it, and drop or rename it."
        )
    if not found.has_table and found.has_type:
        raise TenancyError(
            f"A type {table} exists, and a table has a type of its name. Nothing was changed. Find out who created it, "
            "and drop or rename it."
        )
    if not found.has_table:
        execute_raw(
            connection,
            f"CREATE TABLE {table} (login pg_catalog.name PRIMARY KEY, client_id pg_catalog.int8 NOT NULL)",
        )
        _revoke_from_others(connection, FIND_TABLE_GRANTEES, names["table"], table)
    if not found.has_function:
        execute_raw(connection, tenancy.lookup_statement)
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
