"""Compare the privileges of the group roles, of their logins and of PUBLIC with the declared ones."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import Finding
from syntegra_db.client_policies import (
    BINDINGS_TABLE,
    CLIENT_GRANTS,
    CLIENT_SEQUENCE_GRANTS,
    ID_COLUMN,
    LOOKUP_GRANTS,
    SHARED_GRANTS,
    SHARED_SEQUENCE_GRANTS,
    SHARED_TABLES,
    VERSION_GRANTS,
)
from syntegra_db.revisions import VERSION_TABLE
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from typing import Any

    from sqlalchemy import Row

    from syntegra_db.catalog._protection import Protection
    from syntegra_db.catalog._schema import Schema
    from syntegra_db.client_policies import Grant

PUBLIC = "PUBLIC"


class Privilege(NamedTuple):
    """A privilege on an object, or on one of its columns."""

    name: str
    column: str = ""
    is_grantable: bool = False


def compare_group_privileges(declared: Schema, installed: Schema, protection: Protection) -> Iterator[Finding]:
    """Yield what the group roles, their logins, other roles of those and PUBLIC may do, if it is not as declared.

    Every privilege of any role on `bound_logins` and `bound_client_id` counts. That others read the revision is
    no difference.
    """
    objects: dict[tuple[str, str, str], list[Row[Any]]] = defaultdict(list)
    for row in protection.privileges:
        if row.kind != "TABLE" or row.is_partition or row.name in {*declared.tables, VERSION_TABLE, BINDINGS_TABLE}:
            objects[row.kind, row.name if not row.is_partition else "", row.target].append(row)
    for (kind, name, target), rows in objects.items():
        columns = list(installed.tables[name].columns) if name in installed.tables else []
        expected = _expected(_grants(declared, protection, kind, name), columns, protection)
        found: dict[str, list[Row[Any]]] = defaultdict(list)
        for row in rows:
            if row.grantee is not None and not _is_harmless(row):
                found[row.grantee].append(row)
        if rows[0].is_partition and rows[0].has_policies:
            expected = _kept(found, protection)
        for grantee in dict.fromkeys([*expected, *found]):
            yield from _compare(target, grantee, expected.get(grantee, set()), found.get(grantee, []), columns)
    for outer in protection.missing_outer:
        role = getattr(protection.tenancy.roles, outer.grant.role)
        yield Finding(
            object=f"privilege {outer.grant.privilege} on {outer.kind.lower()} {outer.object}",
            expected=f"granted to {role}",
            found="not granted",
            impact="Its members cannot use the tables, or cannot load rows.",
            fix=outer.statement(protection.tenancy.roles),
        )


def _grants(declared: Schema, protection: Protection, kind: str, name: str) -> Iterable[Grant]:
    if kind == "FUNCTION":
        return LOOKUP_GRANTS
    if kind == "TABLE" and name == VERSION_TABLE:
        return VERSION_GRANTS
    if kind == "TABLE" and name in declared.tables:
        return SHARED_GRANTS if name in SHARED_TABLES else CLIENT_GRANTS if name in protection.row_security else ()
    if kind == "SEQUENCE":
        owners = {table for table, parts in declared.tables.items() if name in parts.sequences}
        if owners & SHARED_TABLES:
            return SHARED_SEQUENCE_GRANTS
        # A table without clients that is not shared is for no service.
        return CLIENT_SEQUENCE_GRANTS if owners & protection.row_security.keys() else ()
    return ()


def _expected(grants: Iterable[Grant], columns: Iterable[str], protection: Protection) -> dict[str, set[Privilege]]:
    expected: dict[str, set[Privilege]] = defaultdict(set)
    for grant in grants:
        role = getattr(protection.tenancy.roles, grant.role)
        names = [column for column in columns if column != ID_COLUMN] if grant.by_column else [""]
        expected[role] |= {Privilege(grant.privilege, column) for column in names}
    return {role: privileges for role, privileges in expected.items() if role in protection.roles}


def _kept(found: Mapping[str, list[Row[Any]]], protection: Protection) -> dict[str, set[Privilege]]:
    """Return those of the privileges that the table had before it became a partition; no statement needs them."""
    columns = {row.column_name for rows in found.values() for row in rows if row.column_name}
    declared = _expected(CLIENT_GRANTS, columns, protection)
    return {role: privileges & {*map(_privilege, found.get(role, []))} for role, privileges in declared.items()}


def _is_harmless(row: Row[Any]) -> bool:
    if row.kind == "SCHEMA":
        # CREATE of PUBLIC is a note.
        return bool(row.privilege != "CREATE" or row.grantee == PUBLIC)
    return bool(
        row.kind == "TABLE" and row.name == VERSION_TABLE and row.privilege == "SELECT" and row.grantee == PUBLIC
    )


def _compare(
    target: str, grantee: str, expected: Collection[Privilege], rows: list[Row[Any]], columns: Collection[str]
) -> Iterator[Finding]:
    grantors = {_privilege(row): row.grantor for row in rows}
    if {*grantors} == {*expected}:
        return
    extra = [privilege for privilege in grantors if privilege not in expected]
    # REVOKE on a table also takes the privilege on its columns.
    revoked = {privilege.name for privilege in extra if not privilege.column and not privilege.is_grantable}
    missing = [
        privilege
        for privilege in sorted(expected)
        if (privilege not in grantors and privilege._replace(is_grantable=True) not in grantors)
        or privilege.name in revoked
    ]
    role = PUBLIC if grantee == PUBLIC else quote(grantee)
    statements = [
        *(_revoke(privilege, expected, target, role, grantors[privilege]) for privilege in extra),
        *([f"GRANT {_describe(missing, ())} ON {target} TO {role};"] if missing else []),
    ]
    yield Finding(
        object=f"privileges of {grantee} on {target.lower() if target.startswith('SCHEMA') else target}",
        expected=_describe(expected, columns) or "none",
        found=_describe(grantors, columns) or "none",
        impact="It can do more with the rows than the policies allow for."
        if extra
        else "Logins with this role cannot do what services need.",
        fix=ddl.join_statements("BEGIN;", *statements, "COMMIT;") if len(statements) > 1 else statements[0],
    )


def _privilege(row: Row[Any]) -> Privilege:
    return Privilege(row.privilege, row.column_name or "", row.is_grantable)


def _revoke(privilege: Privilege, expected: Collection[Privilege], target: str, role: str, grantor: str | None) -> str:
    text = _describe([privilege._replace(is_grantable=False)], ())
    is_option = privilege.is_grantable and privilege._replace(is_grantable=False) in expected
    # A role that got it with the grant option can have given it to others.
    cascade = " CASCADE" if privilege.is_grantable else ""
    statement = f"REVOKE {'GRANT OPTION FOR ' if is_option else ''}{text} ON {target} FROM {role}{cascade};"
    return f"SET ROLE {quote(grantor)};\n{statement}\nRESET ROLE;" if grantor is not None else statement


def _describe(privileges: Collection[Privilege], columns: Collection[str]) -> str:
    """Return privileges as in GRANT, with the columns of each one; `columns` are those of the table, to shorten it."""
    by_name: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for privilege in sorted(privileges):
        by_name[privilege.name, privilege.is_grantable].append(privilege.column)
    texts = []
    for (name, is_grantable), names in by_name.items():
        parts = [quote(column) for column in names if column]
        others = {column for column in columns if column != ID_COLUMN}
        listed = f"all columns but {ID_COLUMN}" if others and {*names} == others else ", ".join(parts)
        if "" in names:
            texts.append(name + (" with grant option" if is_grantable else ""))
        if parts:
            texts.append(f"{name} ({listed})" + (" with grant option" if is_grantable else ""))
    return ", ".join(texts)
