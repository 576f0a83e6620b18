"""Enable and disable the separation of clients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg.errors import DependentObjectsStillExist, InsufficientPrivilege
from sqlalchemy.exc import DBAPIError

from syntegra_db.catalog import declared_sequences, find_unrecorded_tenancy
from syntegra_db.client_policies import (
    DEFAULT_PREFIX,
    POLICIES,
    Tenancy,
    group_roles,
    read_tenancy,
)
from syntegra_db.errors import TenancyError, server_message
from syntegra_db.installed_policies import PARTITIONS
from syntegra_db.migrations import protect_tables
from syntegra_db.revisions import VERSION_TABLE, all_revisions
from syntegra_db.search_path import read_session
from syntegra_db.sql import catalog_query, execute_raw, qualify, quote
from syntegra_db.tenancy._groups import create_missing_roles, require_safe_logins
from syntegra_db.tenancy._objects import (
    create_objects,
    drop_objects,
    grant_outer_privileges,
    revoke_outer_privileges,
    write_mark,
)
from syntegra_db.tenancy._state import managed_tables_of, require_own, require_tenancy, unprotected_tables
from syntegra_db.tenancy._transactions import lock_exclusively, run_change

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sqlalchemy import Connection, Engine, Row

    from syntegra_db.migrations import MigrationOptions

# The table that `op.partition_by_month` made the first partition keeps its policies and privileges, also detached.
FIND_PARTITIONS = catalog_query(f"""
    SELECT parts.relname::text {PARTITIONS}
    UNION
    SELECT relname::text FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = :schema AND relname <> ALL (:tables) AND EXISTS (
      SELECT FROM pg_policy CROSS JOIN unnest(polroles) AS role JOIN pg_roles ON pg_roles.oid = role
      WHERE polrelid = pg_class.oid AND polname = ANY (:policies) AND rolname = ANY (:roles)
    )
""")  # noqa: S608  constants
# What the template `protect_tables.sql` grants, by the role, as statements that take it away.
FIND_GRANTS = catalog_query("""
    SELECT format('REVOKE %s%s ON %s%I.%I FROM %I', privilege_type, columns,
                  CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE '' END, nspname, relname, pg_get_userbyid(grantee))
    FROM (
      SELECT pg_class.oid, relacl AS privileges, '' AS columns, false AS by_column FROM pg_class
      UNION ALL
      SELECT attrelid, attacl, format(' (%I)', attname), true FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped
    ) AS lists JOIN pg_class USING (oid) JOIN pg_namespace ON pg_namespace.oid = relnamespace
      CROSS JOIN aclexplode(privileges)
    WHERE nspname = :schema AND pg_get_userbyid(grantee) = ANY (:roles) AND CASE
      WHEN relname = ANY (:tables) AND relkind IN ('r', 'p') AND by_column THEN privilege_type IN ('INSERT', 'UPDATE')
      WHEN relname = ANY (:tables) AND relkind IN ('r', 'p') THEN privilege_type IN ('SELECT', 'DELETE')
      WHEN relname = ANY (:sequences) AND relkind = 'S' THEN privilege_type = 'USAGE'
    END
""")


@dataclass(frozen=True)
class EnableResult:
    """The recorded state, and the group roles that this run created."""

    tenancy: Tenancy
    created_roles: tuple[str, ...]

    @property
    def attach_statements(self) -> list[str]:
        """The statements that make a login, named `my_login`, a member of one group role each."""
        return [f"GRANT {quote(role)} TO my_login;" for role in self.tenancy.roles if role != self.tenancy.roles.bound]


@dataclass(frozen=True)
class DisableResult:
    """The group roles that were dropped, and those that stay, with the reason."""

    dropped_roles: tuple[str, ...]
    kept_roles: dict[str, str]


def enable(
    bind: Engine | Connection, *, prefix: str | None = None, options: MigrationOptions | None = None
) -> EnableResult:
    """Let the members of the group roles see and change only the rows of their client; all of it or nothing.

    It creates the group roles whose names begin with `prefix`, by default `syntegra_` or the recorded one, policies and
    privileges on the tables of the revision, and the table of the bound logins, whose comment records the state. Each
    migration then protects the tables that it creates. A second run completes what is missing, also the record, and
    changes no policy that is there: `verify` finds one that was changed. The roles belong to the whole cluster: several
    databases, or schemas, with the same prefix share them.

    Raises:
        TenancyError: a role or login may not be in the group roles, a table has other policies, or this role may not
            do it; the message says which, and what to do.
        UntrustedObject: the record of the state belongs to another role.
        LockTimeout, TablesInOtherSchema, RevisionError, CommitUnconfirmed, ConnectionFailed: see `run_change`.
    """

    def change(connection: Connection, revision: str | None, options: MigrationOptions) -> EnableResult:
        return _enable(connection, revision, options, prefix)

    return run_change(bind, change, options)


def disable(bind: Engine | Connection, *, options: MigrationOptions | None = None) -> DisableResult:
    """Remove what `enable` made, all of it or nothing; the logins of the group roles lose access to the rows.

    A group role is dropped if `enable` created it, this role may drop it, and nothing else depends on it, such as
    another database; its logins then are no members any more. The bindings of logins are deleted. The access lists of
    tables, sequences, schemas and the database name their owner afterwards, where PostgreSQL had no list before: that
    means the same, and only a superuser could change the catalog back.

    Raises:
        TenancyError: the clients are not separated, or this role does not own the tables.
        UntrustedObject, LockTimeout, TablesInOtherSchema, RevisionError, CommitUnconfirmed, ConnectionFailed: see
            `enable`.
    """
    return run_change(bind, lambda connection, _, options: _disable(connection, options), options)


def _enable(
    connection: Connection, revision: str | None, options: MigrationOptions, prefix: str | None
) -> EnableResult:
    schema, earlier = read_session(connection).schema, read_tenancy(connection, to_change=True)
    tables = managed_tables_of(connection, schema, [*declared_sequences([revision]), VERSION_TABLE])
    known = earlier or find_unrecorded_tenancy(connection, [table.name for table in tables])
    if known is not None and prefix not in {None, known.prefix}:
        raise TenancyError(
            f"The clients are separated with the prefix {known.prefix} already; nothing was changed. To change it, "
            "run this before: syntegra-db tenancy disable"
        )
    before = known or Tenancy(schema, DEFAULT_PREFIX if prefix is None else prefix)
    roles = group_roles(before.prefix)
    require_own(tables)
    _require_no_other_policies(tables, schema, is_known=known is not None)
    created = create_missing_roles(connection, roles)
    require_safe_logins(connection, roles, schema, [table.name for table in tables])
    create_objects(connection, before, is_marked=earlier is not None, is_known=known is not None)
    granted = grant_outer_privileges(connection, roles, created)
    tenancy = replace(
        before,
        created_roles=tuple(dict.fromkeys([*before.created_roles, *created])),
        granted=tuple(dict.fromkeys([*before.granted, *granted])),
    )
    if tenancy != earlier:
        write_mark(connection, tenancy)
    lock_exclusively(connection, unprotected_tables(tables), options)
    protect_tables(connection, revision)
    return EnableResult(tenancy, tuple(created))


def _require_no_other_policies(tables: Sequence[Row[Any]], schema: str | None, *, is_known: bool) -> None:
    """Raise an error if a policy would show more rows, or FORCE would hide them from the owner's commands."""
    declared = {policy.name for policy in POLICIES} if is_known else set()
    for table in tables:
        name = qualify(schema, table.name)
        if others := [quote(policy) for policy in table.policies if policy not in declared]:
            statements = " ".join(f"DROP POLICY {policy} ON {name};" for policy in others)
            raise TenancyError(
                f"{name} has policies that this package did not create: {', '.join(others)}. Each shows rows to the "
                f"roles that it names. Nothing was changed. If you do not need them, run: {statements}"
            )
        if table.is_forced:
            raise TenancyError(
                f"{name} has FORCE ROW LEVEL SECURITY, which hides the rows from backups and migrations of the owner. "
                f"Nothing was changed. Run: ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY;"
            )
        if table.has_row_security and not is_known:
            raise TenancyError(
                f"{name} has row-level security already, without policies. Nothing was changed. If you do not need it, "
                f"run: ALTER TABLE {name} DISABLE ROW LEVEL SECURITY;"
            )


def _disable(connection: Connection, options: MigrationOptions) -> DisableResult:
    tenancy = require_tenancy(connection)
    declared = declared_sequences(all_revisions())
    installed = [*declared, VERSION_TABLE]
    names = [policy.name for policy in POLICIES]
    parameters = {"schema": tenancy.schema, "tables": installed, "policies": names, "roles": list(tenancy.roles)}
    partitions = connection.scalars(FIND_PARTITIONS, parameters).all()
    tables = managed_tables_of(connection, tenancy.schema, [*installed, *partitions])
    require_own(tables)
    with_policies = [table for table in tables if table.has_client and (table.policies or table.has_row_security)]
    lock_exclusively(connection, [table.name for table in with_policies], options)
    _revoke(connection, tenancy, declared, [table.name for table in tables])
    for table in with_policies:
        target = qualify(tenancy.schema, table.name)
        for name in names:
            if name in table.policies:
                execute_raw(connection, f"DROP POLICY {quote(name)} ON {target}")
        # Other policies are not of this package, and work only with it.
        if table.has_row_security and not {*table.policies} - {*names}:
            execute_raw(connection, f"ALTER TABLE {target} DISABLE ROW LEVEL SECURITY")
    drop_objects(connection, tenancy)
    revoke_outer_privileges(connection, tenancy)
    reasons = {
        role: _drop_role(connection, role)
        if role in tenancy.created_roles
        else "the record does not say that `enable` created it"
        for role in tenancy.roles
    }
    dropped = tuple(role for role, reason in reasons.items() if reason is None)
    return DisableResult(dropped, {role: reason for role, reason in reasons.items() if reason is not None})


def _revoke(connection: Connection, tenancy: Tenancy, declared: dict[str, list[str]], tables: list[str]) -> None:
    parameters = {
        "schema": tenancy.schema,
        "roles": list(tenancy.roles),
        "tables": tables,
        "sequences": [sequence for sequences in declared.values() for sequence in sequences],
    }
    for statement in connection.scalars(FIND_GRANTS, parameters).all():
        execute_raw(connection, statement)


def _drop_role(connection: Connection, role: str) -> str | None:
    """Drop a group role; return why it stays, or None."""
    try:
        with connection.begin_nested():
            execute_raw(connection, f"DROP ROLE IF EXISTS {quote(role)}")
    except DBAPIError as error:
        if not isinstance(error.orig, DependentObjectsStillExist | InsufficientPrivilege):
            raise
        detail = error.orig.diag.message_detail
        return server_message(error) + (f" ({', '.join(detail.splitlines())})" if detail else "")
    return None
