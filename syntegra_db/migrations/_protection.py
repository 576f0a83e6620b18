"""Give tables that a migration creates the policies and privileges of `syntegra-db tenancy` before the commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog import Schema, declared_sequences, written_manifests
from syntegra_db.client_policies import (
    BINDINGS_TABLE,
    CLIENT_GRANTS,
    CLIENT_SEQUENCE_GRANTS,
    FIND_LOOKUP_OVERLOAD,
    ID_COLUMN,
    MARK,
    MARK_WITH_PREFIX,
    POLICIES,
    PREFIX_FORMAT,
    SHARED_GRANTS,
    SHARED_SEQUENCE_GRANTS,
    SHARED_TABLES,
    GroupRoles,
    read_tenancy,
)
from syntegra_db.client_setting import CLIENT_COLUMN, LOOKUP_FUNCTION
from syntegra_db.migrations._templates import read_template
from syntegra_db.revisions import VERSION_TABLE
from syntegra_db.search_path import read_session
from syntegra_db.sql import execute_raw, literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection

CURRENT_SCHEMA = "pg_catalog.current_schema()"


def protect_tables(connection: Connection, *revisions: str | None) -> None:
    """Complete what `syntegra-db tenancy enable` makes on the installed tables of `revisions`, in the open transaction.

    Without the mark of `enable`, it does nothing. What is there stays as it is.

    Raises:
        UntrustedObject: see `read_tenancy`.
        DBAPIError: the mark belongs to a role that does not migrate, or the server rejected a statement.
    """
    if read_tenancy(connection) is not None:
        # Not between dollar signs, which the name of the schema can have.
        block = protection_block(revisions, literal(read_session(connection).schema))
        execute_raw(connection, f"DO {literal(block)}")


def creates_unprotected(start: str | None, end: str | None) -> bool:
    """Return whether a migration from `start` to `end` creates a table or a column, as far as the manifests say."""
    manifests = written_manifests()
    if (end or start) not in manifests:
        return True
    before, after = (manifests.get(revision or "", Schema()).tables for revision in (start, end))
    return any(name not in before or table.columns.keys() - before[name].columns for name, table in after.items())


def render_protection(revisions: Iterable[str | None]) -> str:
    """Return the statement that does the same in the current schema."""
    return f"DO $$\n{protection_block(revisions)}$$;"


def protection_block(revisions: Iterable[str | None], schema: str = CURRENT_SCHEMA) -> str:
    """Return the block of PL/pgSQL that does it in `schema`, an SQL expression."""
    return read_template("protect_tables").format(
        schema=schema,
        mark=literal(MARK),
        mark_pattern=literal("^" + MARK_WITH_PREFIX.format(prefix='([^"]*)')),
        bindings_table=literal(BINDINGS_TABLE),
        lookup_function=literal(LOOKUP_FUNCTION),
        lookup_overload=FIND_LOOKUP_OVERLOAD.format(schema="main_schema", name=literal(LOOKUP_FUNCTION)).strip(),
        # In the text of a policy.
        lookup=literal("{lookup}"),
        prefix_format=literal(PREFIX_FORMAT),
        role_keys=", ".join(map(literal, GroupRoles._fields)),
        client_column=literal(CLIENT_COLUMN),
        id_column=literal(ID_COLUMN),
        version_table=literal(VERSION_TABLE),
        # VALUES has at least one row.
        tables=_rows([*_tables(revisions)] or [("NULL", "false", _array(()))], 6),
        policies=_rows(
            (
                (*map(literal, policy[:2]), _array(policy.roles), literal(policy.using), literal(policy.check))
                for policy in POLICIES
            ),
            10,
        ),
        table_grants=_rows(
            (
                (str(is_shared).lower(), literal(grant.role), literal(grant.privilege), str(grant.by_column).lower())
                for is_shared, grants in ((False, CLIENT_GRANTS), (True, SHARED_GRANTS))
                for grant in grants
            ),
            8,
        ),
        sequence_grants=_rows(
            (
                (str(is_shared).lower(), literal(grant.role), literal(grant.privilege))
                for is_shared, grants in ((False, CLIENT_SEQUENCE_GRANTS), (True, SHARED_SEQUENCE_GRANTS))
                for grant in grants
            ),
            8,
        ),
    )


def _tables(revisions: Iterable[str | None]) -> Iterator[tuple[str, str, str]]:
    """Yield the tables of `revisions`, whether each is shared, and its sequences."""
    for name, sequences in declared_sequences(revisions).items():
        yield literal(name), str(name in SHARED_TABLES).lower(), _array(sequences)


def _array(values: Iterable[str]) -> str:
    return f"ARRAY[{', '.join(map(literal, values))}]::text[]"


def _rows(rows: Iterable[Iterable[str]], indent: int) -> str:
    return f",\n{' ' * indent}".join(f"({', '.join(row)})" for row in rows)
