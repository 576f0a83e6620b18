"""Compare what separates the clients with `syntegra_db.client_policies`; each fix restores the separation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import Finding
from syntegra_db.catalog.compare._group_privileges import compare_group_privileges
from syntegra_db.client_policies import (
    BINDINGS_TABLE,
    DEFAULT_PREFIX,
    LOOKUP_BODY,
    LOOKUP_SETTINGS,
    POLICIES,
)
from syntegra_db.client_setting import LOOKUP_FUNCTION
from syntegra_db.group_roles import describe_role, role_fixes
from syntegra_db.installed_policies import declared_policy
from syntegra_db.sql import literal, qualify, quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._introspection import LiveCatalog
    from syntegra_db.catalog._protection import Protection
    from syntegra_db.catalog._schema import Schema

SEES_EVERY_CLIENT = "It can show rows of every client."
ROW_SECURITY = {
    "off": ("Every login of the group roles sees and changes the rows of every client.", "ENABLE ROW LEVEL SECURITY"),
    "on, forced": (
        "It hides rows from the owner: backups, migrations and `syntegra-db vectors` fail or work on no rows.",
        "NO FORCE ROW LEVEL SECURITY",
    ),
    "off, forced": (
        "Every login of the group roles sees and changes the rows of every client.",
        "ENABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
    ),
}


def compare_tenancy(declared: Schema, installed: LiveCatalog) -> Iterator[Finding]:
    """Yield what differs from what `syntegra-db tenancy enable` makes, if it ran in this schema.

    With a record that is missing or damaged, only that is reported. Everything is in catalogs that each role can read.
    """
    protection = installed.protection
    if protection is None:
        return
    if protection.problem is not None or not protection.is_recorded:
        yield _record(protection)
        return
    yield from _roles(protection)
    yield from _lookup(protection)
    for table in declared.tables:
        if table in protection.row_security:
            yield from _policies(protection, table)
            yield from _row_security(protection, table)
    for partition in protection.partitions:
        yield from _policies(protection, partition, is_partition=True)
    yield from compare_group_privileges(declared, installed.schema, protection)
    if not any(row.attributes or row.parents for row in protection.roles.values()):
        # Otherwise each login has them from its group role.
        yield from _logins(protection)
    yield from _bypasses(protection)


def _record(protection: Protection) -> Finding:
    tenancy = protection.tenancy
    table = qualify(tenancy.schema, BINDINGS_TABLE)
    option = "" if tenancy.prefix == DEFAULT_PREFIX else f" --prefix {tenancy.prefix}"
    fix = f"-- Run `syntegra-db tenancy enable{option}`, then verify again."
    if protection.problem is not None:
        fix = f"-- {protection.problem}"
        if protection.is_damaged and protection.policies:
            fix = ddl.join_statements(
                "-- `tenancy disable` then keeps the group roles and their privileges on schemas and the database.",
                f"COMMENT ON TABLE {table} IS {literal(tenancy.mark)};",
            )
    return Finding(
        object=f"record of `syntegra-db tenancy` in the comment of {table}",
        expected=tenancy.mark,
        found="another one" if protection.problem else "none, although the policies are there",
        impact="No migration protects the tables that it creates, and nothing else of the separation is compared.",
        fix=fix,
    )


def _roles(protection: Protection) -> Iterator[Finding]:
    for name in protection.tenancy.roles:
        row = protection.roles.get(name)
        if row is None:
            fix, found = f"CREATE ROLE {quote(name)} NOLOGIN;", "no such role"
            impact = "Migrations fail, and the logins that were its members see no rows."
        elif row.attributes or row.parents:
            fix = ddl.join_statements(*role_fixes(name, row.attributes, protection.parent_revokes[name]))
            found = f"a role that {describe_role(row.attributes, row.parents)}"
            impact = "The policies may not bind its members, or they see rows of other clients."
        else:
            continue
        yield Finding(
            object=f"role {name}",
            expected="a role without LOGIN and other attributes, in no other role",
            found=found,
            impact=impact,
            fix=fix,
        )


def _lookup(protection: Protection) -> Iterator[Finding]:
    tenancy, row = protection.tenancy, protection.lookup
    name = f"{qualify(tenancy.schema, LOOKUP_FUNCTION)}()"
    body = LOOKUP_BODY.format(table=qualify(tenancy.schema, BINDINGS_TABLE))
    declared = ("sql", "bigint", True, "s", "s", [*LOOKUP_SETTINGS], body)
    found = row and (row.language, row.type, row.is_definer, row.volatility, row.parallel, row.settings, row.body)
    if row is not None and row.owner != row.table_owner:
        yield Finding(
            object=f"owner of function {name}",
            expected=f"{quote(row.table_owner)}, the owner of {BINDINGS_TABLE}",
            found=quote(row.owner),
            impact="Another role decides which rows a bound login sees.",
            fix=f"ALTER FUNCTION {name} OWNER TO {quote(row.table_owner)};",
        )
    if found != declared:
        is_other_type = row is not None and row.type != "bigint"
        yield Finding(
            object=f"function {name}",
            expected=tenancy.lookup_statement,
            found="no such function" if row is None else f"another one: {row.language}, {row.type}, {row.body}",
            impact="A bound login can see rows of another client, or none.",
            fix=f"-- Drop it with CASCADE, then run `syntegra-db tenancy enable`: DROP FUNCTION {name} CASCADE;"
            if is_other_type
            else ddl.join_statements(
                tenancy.lookup_statement,
                *(
                    (
                        f"REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC;",
                        f"GRANT EXECUTE ON FUNCTION {name} TO {quote(tenancy.roles.bound)};",
                    )
                    if row is None
                    else ()
                ),
            ),
        )


def _policies(protection: Protection, table: str, *, is_partition: bool = False) -> Iterator[Finding]:
    tenancy = protection.tenancy
    target = qualify(tenancy.schema, table)
    installed = protection.policies.get(table, {})
    for policy in POLICIES:
        expected, found = declared_policy(policy, tenancy, protection.lookup_name), installed.get(policy.name)
        # A partition without a policy shows fewer rows, and statements on its table do not ask for it.
        if found == expected or (found is None and is_partition):
            continue
        create = policy.statement(tenancy, table)
        replace = ("BEGIN;", f"DROP POLICY {quote(policy.name)} ON {target};", create, "COMMIT;")
        yield Finding(
            object=f"policy {policy.name} on {table}",
            expected=str(expected),
            found="missing" if found is None else str(found),
            impact="A login sees or changes other rows than those of its client, or none.",
            fix=create if found is None else ddl.join_statements(*replace),
        )
    for name in installed.keys() - {policy.name for policy in POLICIES}:
        yield Finding(
            object=f"policy {name} on {table}",
            expected="no such policy",
            found=str(installed[name]),
            impact="It shows rows to its roles, or hides rows from them, in addition to the declared policies.",
            fix=f"DROP POLICY {quote(name)} ON {target};",
        )


def _row_security(protection: Protection, table: str) -> Iterator[Finding]:
    found = protection.row_security[table]
    if found in ROW_SECURITY:
        impact, action = ROW_SECURITY[found]
        yield Finding(
            object=f"row-level security of {table}",
            expected="on",
            found=found,
            impact=impact,
            fix=f"ALTER TABLE {qualify(protection.tenancy.schema, table)} {action};",
        )


def _logins(protection: Protection) -> Iterator[Finding]:
    for login in protection.logins:
        yield Finding(
            object=f"login {login.name}",
            expected="bound by the policies, as a member of a group role",
            found=login.reason,
            impact="It can see and change the rows of every client.",
            fix=ddl.join_statements(
                "-- This takes the login out of a role, or an attribute from it. Or remove the reason instead.",
                *login.fixes,
            ),
        )


def _bypasses(protection: Protection) -> Iterator[Finding]:
    for row in protection.views:
        revoke = f"REVOKE ALL ON {row.target} FROM {', '.join(row.readers)};" if row.is_copied else ""
        invoke = f"ALTER VIEW {row.target} SET (security_invoker = true);" if row.is_view else ""
        yield Finding(
            object=f"view {row.target}",
            expected="a view with security_invoker" if row.is_view else "no privileges of logins of one client",
            found=f"a view with the privileges of {quote(row.owner)}"
            if row.is_view
            else f"a copy of rows of every client, which {', '.join(row.readers)} may read",
            impact=SEES_EVERY_CLIENT,
            fix=ddl.join_statements(invoke, revoke),
        )
    for row in protection.functions:
        yield Finding(
            object=f"function {row.target}",
            expected="no SECURITY DEFINER on tables of clients",
            found=f"SECURITY DEFINER of {quote(row.owner)}",
            impact=f"{SEES_EVERY_CLIENT} Its body names such a table; names that a body puts together are not found.",
            fix=f"ALTER ROUTINE {row.target} SECURITY INVOKER;",
        )
    for row in protection.default_privileges:
        place = f" IN SCHEMA {quote(row.schema)}" if row.schema else ""
        yield Finding(
            object=f"default privileges of {row.creator}{place} on {row.kind.lower()}",
            expected=f"none for {row.grantee}",
            found=row.privileges,
            impact="A new table shows its rows to logins of every client before it has policies.",
            fix=f"ALTER DEFAULT PRIVILEGES FOR ROLE {quote(row.creator)}{place} REVOKE {row.privileges} ON {row.kind} "
            f"FROM {row.grantee};",
        )
