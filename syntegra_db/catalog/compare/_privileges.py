"""Compare the privileges of the session's role on the tables and sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog._findings import Finding
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._introspection import LiveCatalog
    from syntegra_db.catalog._protection import Protection
    from syntegra_db.catalog._schema import Schema

PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")


def compare_privileges(declared: Schema, installed: LiveCatalog) -> Iterator[Finding]:
    """Yield who else may create objects in the schema, and the privileges that the session's role is missing.

    A privilege that is missing on every table may be intended, as for a read-only role: a note. SELECT that is missing
    on some tables is drift, and so is a sequence that the role cannot use although it may insert into the table. Other
    missing privileges may be intended: notes. If the clients are separated, only the group roles have privileges.
    """
    yield from _creators(installed)
    if installed.protection is not None:
        yield from _membership(installed, installed.protection)
        return
    role, missing = installed.privileges.role, installed.privileges.missing
    tables = [name for name in declared.tables if name in installed.schema.tables]
    for privilege in PRIVILEGES:
        denied = [name for name in tables if privilege in missing[name]]
        if denied and denied == tables:
            yield _privilege(role, privilege, "any table", ", ".join(map(quote, tables)), is_drift=False)
            continue
        for name in denied:
            yield _privilege(role, privilege, name, quote(name), is_drift=privilege == "SELECT")
    for name in tables:
        for sequence in declared.tables[name].sequences:
            if "INSERT" not in missing[name] and sequence in installed.privileges.unusable_sequences:
                yield _privilege(role, "USAGE", sequence, f"SEQUENCE {quote(sequence)}", is_drift=True)


def _membership(installed: LiveCatalog, protection: Protection) -> Iterator[Finding]:
    role, missing = installed.privileges.role, installed.privileges.missing
    if not protection.is_member and any("SELECT" in privileges for privileges in missing.values()):
        yield Finding(
            object=f"role {role}",
            expected=f"a member of a group role, such as {protection.tenancy.roles.service}",
            found="a member of none",
            impact="It cannot read the tables.",
            fix=f"GRANT {quote(protection.tenancy.roles.service)} TO {quote(role)};",
            is_drift=False,
        )


def _creators(installed: LiveCatalog) -> Iterator[Finding]:
    schema, creators = installed.schema_name, ", ".join(installed.privileges.creators)
    if creators:
        yield Finding(
            object=f"privilege CREATE on schema {schema}",
            expected="granted to the owners of the schema and of its tables",
            found=f"also granted to {creators}",
            impact="A function or operator that they create there can run with the privileges of a service.",
            fix=f"REVOKE CREATE ON SCHEMA {quote(schema)} FROM {creators};",
            is_drift=False,
        )


def _privilege(role: str, privilege: str, target: str, grant_target: str, *, is_drift: bool) -> Finding:
    return Finding(
        object=f"privilege {privilege} on {target}",
        expected=f"granted to {role}",
        found="not granted",
        impact="A service with this role cannot insert into the table of this sequence."
        if privilege == "USAGE"
        else f"A service with this role cannot run {privilege} on it.",
        fix=f"GRANT {privilege} ON {grant_target} TO {quote(role)};",
        is_drift=is_drift,
    )
