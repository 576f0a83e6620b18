"""What the tables need around them: the extension `vector`, and privileges for whoever uses them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from syntegra_db.catalog import _ddl as ddl
from syntegra_db.catalog._findings import Finding
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._introspection import LiveCatalog
    from syntegra_db.catalog._schema import Schema

# https://github.com/pgvector/pgvector/blob/master/CHANGELOG.md: before 0.3.1 inserts could corrupt an ivfflat index,
# before 0.4.0 numbers lost digits on their way through text; 0.8.0 brought iterative scans.
MIN_PGVECTOR = (0, 4)
ITERATIVE_SCAN_PGVECTOR = (0, 8)
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")


def compare_extension(expected: Schema, found: LiveCatalog) -> Iterator[Finding]:
    """Yield what is wrong with the extension `vector`, where a column of `expected` needs it."""
    columns = (column for table in expected.tables.values() for column in table.columns.values())
    if not any(column.type.startswith("vector") for column in columns):
        return
    extension = found.extension
    if extension is None:
        yield _extension("no such extension", "No embedding can be stored or searched.", "CREATE EXTENSION vector;")
        return
    version = parse_version(extension.version)
    if version < ITERATIVE_SCAN_PGVECTOR:
        too_old = version < MIN_PGVECTOR
        yield _extension(
            f"version {extension.version}",
            "Numbers lose digits on their way to the client, and older ones still corrupt ivfflat indexes."
            if too_old
            else "A search with a filter can return fewer rows than it was asked for: iterative scans came with 0.8.",
            ddl.join_statements(
                "-- Where the server itself has no newer pgvector, install one first.", "ALTER EXTENSION vector UPDATE;"
            ),
            is_drift=too_old,
        )
    if extension.search_path is not None:
        yield _extension(
            f"in schema {extension.schema}, which is not on the search_path",
            "Sessions like this one find neither the type nor its operators.",
            f"ALTER ROLE {quote(found.privileges.role)} SET search_path = {extension.search_path}, {extension.schema};",
            is_drift=False,
        )


def _extension(found: str, impact: str, fix: str, *, is_drift: bool = True) -> Finding:
    return Finding(
        object="extension vector",
        expected=f"version {'.'.join(map(str, MIN_PGVECTOR))} or newer, best "
        f"{'.'.join(map(str, ITERATIVE_SCAN_PGVECTOR))}",
        found=found,
        impact=impact,
        fix=fix,
        is_drift=is_drift,
    )


def parse_version(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def compare_privileges(expected: Schema, found: LiveCatalog) -> Iterator[Finding]:
    """Yield what the session's own role may not do with the tables and sequences: drift where it looks forgotten.

    A role without a privilege on any table was made so, as a read-only or a monitoring role is: a note. A role
    that may read some tables and not others was forgotten when the others were made: drift. So is a role that may
    insert into a table and not use the sequence of its ids. Other gaps in writing may be on purpose: notes.
    """
    role, lacking = found.privileges.role, found.privileges.missing
    tables = [name for name in expected.tables if name in found.shape.tables]
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
