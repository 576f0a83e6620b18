"""What separates the clients in an installed schema; see `syntegra_db.client_policies`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from syntegra_db.catalog import _protection_queries
from syntegra_db.client_policies import (
    BINDINGS_TABLE,
    POLICIES,
    SHARED_TABLES,
    Tenancy,
    group_roles,
    read_tenancy,
)
from syntegra_db.client_setting import CLIENT_COLUMN, LOOKUP_FUNCTION
from syntegra_db.errors import TenancyError, UntrustedObject
from syntegra_db.group_roles import (
    find_outer_privilege,
    find_parent_revokes,
    find_roles,
    find_unsafe_logins,
    outer_grants,
)
from syntegra_db.installed_policies import InstalledPolicy, declared_policy
from syntegra_db.revisions import VERSION_TABLE
from syntegra_db.search_path import CATALOG_ONLY, read_session
from syntegra_db.sql import execute_raw

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from sqlalchemy import Connection, Row

    from syntegra_db.catalog._schema import Table
    from syntegra_db.group_roles import OuterGrant, UnsafeLogin

OFF = "off"
KINDS_WITH_POLICIES = ("table", "partitioned table")
POLICY_LABEL = "policy "


@dataclass(frozen=True)
class Protection:
    """What separates the clients, as it is installed.

    `is_recorded` is False if the record of `syntegra-db tenancy enable` is missing although its policies are there.
    `problem` is why the record cannot be used: it `is_damaged` or belongs to another role. `row_security` and
    `policies` are by table with a client, and `policies` by each of its `partitions` with row-level security too.
    `is_member` is about the session's role and any group role. `missing_outer`
    are privileges on schemas and the database that a group role lacks. The rows of the other fields are those of
    `_protection_queries`.
    """

    tenancy: Tenancy
    is_recorded: bool = True
    problem: str | None = None
    lookup_name: str = ""
    is_damaged: bool = False
    row_security: Mapping[str, str] = field(default_factory=dict)
    policies: Mapping[str, Mapping[str, InstalledPolicy]] = field(default_factory=dict)
    partitions: Sequence[str] = ()
    is_member: bool = False
    roles: Mapping[str, Row[Any]] = field(default_factory=dict)
    parent_revokes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    logins: Sequence[UnsafeLogin] = ()
    missing_outer: Sequence[OuterGrant] = ()
    privileges: Sequence[Row[Any]] = ()
    lookup: Row[Any] | None = None
    views: Sequence[Row[Any]] = ()
    functions: Sequence[Row[Any]] = ()
    default_privileges: Sequence[Row[Any]] = ()


def read_protection(connection: Connection, tables: Mapping[str, Table]) -> Protection | None:
    """Return what separates the clients in the current schema, with these installed `tables`; None if nothing does."""
    schema = read_session(connection).schema
    clients = [
        name for name, table in tables.items() if CLIENT_COLUMN in table.columns and table.kind in KINDS_WITH_POLICIES
    ]
    partitions = connection.scalars(
        _protection_queries.PROTECTED_PARTITIONS, {"schema": schema, "tables": clients}
    ).all()
    policies, lookup_name = _read_policies(connection, schema, [*clients, *partitions])
    recorded, problem, is_damaged = None, None, False
    try:
        recorded = read_tenancy(connection)
    except (UntrustedObject, TenancyError) as error:
        problem, is_damaged = str(error), isinstance(error, TenancyError)
    tenancy = recorded or _recognize(schema, policies, lookup_name)
    if tenancy is None:
        return Protection(Tenancy(schema), problem=problem) if problem else None
    protection = Protection(
        tenancy,
        recorded is not None,
        problem,
        lookup_name,
        is_damaged,
        row_security={name: tables[name].row_security for name in clients},
        policies=policies,
        partitions=partitions,
    )
    return _with_roles(connection, protection, tables) if recorded else protection


def find_unrecorded_tenancy(connection: Connection, tables: Iterable[str]) -> Tenancy | None:
    """Return the state of which the record is missing: one of `tables` has exactly the declared policies."""
    schema = read_session(connection).schema
    policies, lookup_name = _read_policies(connection, schema, tables)
    return _recognize(schema, policies, lookup_name)


def without_protection(tables: Mapping[str, Table], protection: Protection | None) -> dict[str, Table]:
    """Return `tables` without what `protection` has of them, which manifests do not declare."""
    if protection is None:
        return dict(tables)
    return {
        name: table
        if name not in protection.row_security
        else replace(
            table,
            row_security=OFF,
            attached_objects={
                label: text for label, text in table.attached_objects.items() if not label.startswith(POLICY_LABEL)
            },
        )
        for name, table in tables.items()
    }


def _read_policies(
    connection: Connection, schema: str | None, tables: Iterable[str]
) -> tuple[dict[str, dict[str, InstalledPolicy]], str]:
    """Return the policies by table and name, and the name of the function in their expressions."""
    parameters = {"schema": schema, "tables": list(tables), "lookup": LOOKUP_FUNCTION}
    found: dict[str, dict[str, InstalledPolicy]] = {}
    lookup = ""
    savepoint = connection.begin_nested()
    execute_raw(connection, f"SET LOCAL search_path TO {CATALOG_ONLY}")
    rows = connection.execute(_protection_queries.POLICIES, parameters).all()
    savepoint.rollback()
    for row in rows:
        found.setdefault(row.table_name, {})[row.name] = InstalledPolicy.of(row)
        lookup = row.lookup
    return found, lookup


def _recognize(
    schema: str | None, policies: Mapping[str, Mapping[str, InstalledPolicy]], lookup: str
) -> Tenancy | None:
    """Return the state of which the record is missing: a table has exactly the declared policies, of some prefix."""
    first = POLICIES[0]
    for installed in policies.values():
        for role in installed[first.name].roles if first.name in installed else ():
            prefix = role.removesuffix(first.roles[0])
            try:
                group_roles(prefix)
            except TenancyError:
                continue
            tenancy = Tenancy(schema, prefix)
            declared = {policy.name: declared_policy(policy, tenancy, lookup) for policy in POLICIES}
            if declared.items() <= dict(installed).items():
                return tenancy
    return None


def _with_roles(connection: Connection, protection: Protection, tables: Mapping[str, Table]) -> Protection:
    """Return `protection` with the roles, their privileges, and what runs with the privileges of the owner."""
    tenancy = protection.tenancy
    roles, schema = tenancy.roles, tenancy.schema
    clients = [*protection.row_security]
    sequences = [name for table in tables.values() for name in table.sequences]
    parameters = {
        "schema": schema,
        "groups": list(roles),
        "admin": roles.admin,
        "tables": clients,
        "relations": [*clients, *(SHARED_TABLES & tables.keys()), *sequences, VERSION_TABLE, BINDINGS_TABLE],
        "bindings": BINDINGS_TABLE,
        "lookup": LOOKUP_FUNCTION,
        "words": rf"\m({'|'.join(map(re.escape, clients)) or '-'})\M",
    }
    existing = find_roles(connection, roles)

    def rows(query: Any) -> Sequence[Row[Any]]:
        names = query.compile().params
        return connection.execute(query, {name: parameters[name] for name in names}).all()

    return replace(
        protection,
        is_member=bool(rows(_protection_queries.IS_MEMBER)[0][0]),
        roles=existing,
        parent_revokes=find_parent_revokes(connection, existing),
        logins=find_unsafe_logins(connection, roles, schema, tables),
        missing_outer=[
            outer
            for outer in outer_grants(connection)
            if getattr(roles, outer.grant.role) in existing
            and not find_outer_privilege(connection, roles, outer).has_privilege
        ],
        privileges=rows(_protection_queries.PRIVILEGES),
        lookup=next(iter(rows(_protection_queries.LOOKUP)), None),
        views=rows(_protection_queries.VIEWS),
        functions=rows(_protection_queries.DEFINER_FUNCTIONS),
        default_privileges=rows(_protection_queries.DEFAULT_PRIVILEGES),
    )
