"""Compare the privileges of the session's role on the tables and sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog._findings import Finding
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._introspection import LiveCatalog
    from syntegra_db.catalog._schema import Schema

PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")


def compare_privileges(expected: Schema, found: LiveCatalog) -> Iterator[Finding]:
    """Yield what the session's own role may not do with the tables and sequences: drift where it looks forgotten.

    A role without a privilege on any table was made so, as a read-only or a monitoring role is: a note. A role
    that may read some tables and not others was forgotten when the others were made: drift. So is a role that may
    insert into a table and not use the sequence of its ids. Other gaps in writing may be on purpose: notes.
    """
    role, lacking = found.privileges.role, found.privileges.missing
    tables = [name for name in expected.tables if name in found.schema.tables]
    for privilege in PRIVILEGES:
        without = [name for name in tables if privilege in lacking[name]]
        if without and without == tables:
            yield _privilege(role, privilege, "any table", ", ".join(map(quote, tables)), is_drift=False)
            continue
        for name in without:
            yield _privilege(role, privilege, name, quote(name), is_drift=privilege == "SELECT")
    for name in tables:
        for sequence in expected.tables[name].sequences:
            if "INSERT" not in lacking[name] and sequence in found.privileges.unusable_sequences:
                yield _privilege(role, "USAGE", sequence, f"SEQUENCE {quote(sequence)}", is_drift=True)


def _privilege(role: str, privilege: str, where: str, targets: str, *, is_drift: bool) -> Finding:
    return Finding(
        object=f"privilege {privilege} on {where}",
        expected=f"granted to {role}",
        found="not granted",
        impact="A service that logs in with this role cannot insert into its table."
        if privilege == "USAGE"
        else f"A service that logs in with this role cannot {privilege} there.",
        fix=f"GRANT {privilege} ON {targets} TO {quote(role)};",
        is_drift=is_drift,
    )
