"""Render DDL for schema objects, one statement per line, with online variants where PostgreSQL has them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from syntegra_db.compatibility import compatibility_comment
from syntegra_db.revisions import VERSION_TABLE
from syntegra_db.sql import literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from syntegra_db.catalog._schema import Column, Table

KEY_CONSTRAINT = re.compile(r"(PRIMARY KEY|UNIQUE) (\(.+\))")
LIMITED_TEXT = re.compile(r"character varying\((\d+)\)")
FOREIGN_KEY = "FOREIGN KEY"
UNLOGGED = "UNLOGGED "
BLOCKS_WRITES = "-- Writes to the partitioned table wait until all its partitions are read."


def join_statements(*statements: str) -> str:
    """Return one statement per line, without the empty ones."""
    return "\n".join(statement for statement in statements if statement)


def alter_column(table: str, column: str, *actions: str) -> str:
    """Return one statement that applies all `actions` to a column."""
    return f"ALTER TABLE {quote(table)} {', '.join(f'ALTER COLUMN {quote(column)} {action}' for action in actions)};"


def create_enum(name: str, labels: Iterable[str]) -> str:
    """Return the statement that creates an ENUM type."""
    return f"CREATE TYPE {quote(name)} AS ENUM ({', '.join(literal(label) for label in labels)});"


def recreate_enum(name: str, labels: Iterable[str], columns: Iterable[tuple[str, str, Column]]) -> str:
    """Return a transaction that replaces an ENUM type and converts the `columns` that use it.

    It rewrites their tables under ACCESS EXCLUSIVE, and fails if a row has a label that the new type does not have.
    """
    old = f"{name}_old"
    return join_statements(
        "BEGIN;",
        f"ALTER TYPE {quote(name)} RENAME TO {quote(old)};",
        create_enum(name, labels),
        *(alter_column_type(*column) for column in columns),
        f"DROP TYPE {quote(old)};",
        "COMMIT;",
    )


def alter_column_type(table: str, name: str, column: Column) -> str:
    """Return the statements that set the type, collation, default and storage of a column."""
    collation = f" COLLATE {column.collation}" if column.collation else ""
    return join_statements(
        alter_column(
            table,
            name,
            "DROP DEFAULT",
            f"TYPE {column.type}{collation} USING {_conversion(quote(name) + '::text', column.type)}",
            *([f"SET DEFAULT {column.default}"] if column.default else []),
        ),
        set_storage(table, name, column),
    )


def loss_condition(text: str, column_type: str) -> str | None:
    """Return the SQL condition for `text`, the text of a value, that a cast to `column_type` would cut or round.

    None means that a cast to this type fails instead.
    """
    limit = LIMITED_TEXT.fullmatch(column_type)
    if limit:
        return f"char_length({text}) > {limit[1]}"
    if column_type == "double precision":
        # The cast fails near the limits of the type and beyond them.
        return (
            f"CASE WHEN abs({text}::numeric) BETWEEN 1e-300 AND 1e300"
            f" THEN {text}::double precision::text::numeric <> {text}::numeric"
            # A text has at most 17 digits, although a whole number with more can be exact.
            f" AND CASE WHEN abs({text}::numeric) < 9223372036854775000"
            f" THEN {text}::double precision::bigint <> {text}::numeric"
            f" ELSE {text}::numeric <> -9223372036854775808 END"
            f" ELSE {text}::numeric NOT IN (0, 'NaN', 'Infinity', '-Infinity') END"
        )
    return None


def _conversion(text: str, column_type: str) -> str:
    """Return the conversion of a value to `column_type`; it fails for a value that a cast would cut or round."""
    condition = loss_condition(text, column_type)
    if condition is None:
        return f"{text}::{column_type}"
    # The explicit cast to a limited type cuts text, and the implicit one cuts blanks. The longer text is rejected.
    cast = "" if LIMITED_TEXT.fullmatch(column_type) else f"::{column_type}"
    return f"(CASE WHEN {condition} THEN {text} || ' does not fit' ELSE {text} END){cast}"


def set_storage(table: str, name: str, column: Column) -> str:
    """Return the statement that sets the storage of a vector; other types keep their default storage."""
    return alter_column(table, name, f"SET STORAGE {column.storage}") if column.type.startswith("vector") else ""


def add_column(table: str, name: str, column: Column) -> str:
    """Return the statements that add a column."""
    required = column.nullability != "NULL" and not column.default
    return join_statements(
        "-- If the table has rows: add it without NOT NULL, backfill it, then SET NOT NULL." if required else "",
        f"ALTER TABLE {quote(table)} ADD COLUMN {column_definition(table, name, column)};",
        set_storage(table, name, column),
        comment_on("COLUMN", f"{quote(table)}.{quote(name)}", column.comment),
    )


def column_definition(table: str, name: str, column: Column) -> str:
    """Return a column as in CREATE TABLE; a BIGSERIAL is written as one, because that creates its sequence."""
    if column.default == f"nextval('{serial_sequence(table, name)}'::regclass)" and column.type == "bigint":
        return f"{quote(name)} bigserial"
    return " ".join(
        part
        for part in (
            quote(name),
            column.type,
            f"COLLATE {column.collation}" if column.collation else "",
            "" if column.nullability == "NULL" else column.nullability,
            f"DEFAULT {column.default}" if column.default else "",
        )
        if part
    )


def serial_sequence(table: str, column: str) -> str:
    """Return PostgreSQL's name for the sequence of a BIGSERIAL."""
    return f"{table}_{column}_seq"


def comment_on(kind: str, name: str, comment: str | None) -> str:
    """Return the statement that sets a comment."""
    return f"COMMENT ON {kind} {name} IS {literal(comment)};"


def create_table(name: str, table: Table) -> str:
    """Return the statements that create a table with its indexes and constraints, except foreign keys."""
    parts = [column_definition(name, column_name, column) for column_name, column in table.columns.items()]
    parts += [
        f"CONSTRAINT {quote(constraint)} {definition}"
        for constraint, definition in table.constraints.items()
        if not definition.startswith(FOREIGN_KEY)
    ]
    partition_by = f" PARTITION BY {table.partition_key}" if table.is_partitioned else ""
    return join_statements(
        "-- If it was renamed, rename it back. Otherwise this creates an empty table; restore the rows from a backup.",
        f"CREATE TABLE {quote(name)} ({', '.join(parts)}){partition_by};",
        *(set_storage(name, column_name, column) for column_name, column in table.columns.items()),
        comment_on("TABLE", quote(name), table.comment),
        *(
            comment_on("COLUMN", f"{quote(name)}.{quote(column_name)}", column.comment)
            for column_name, column in table.columns.items()
        ),
        *(
            create_index(index, name, definition, is_partitioned=table.is_partitioned)
            for index, definition in table.indexes.items()
        ),
        create_default_partition(name) if table.is_partitioned else "",
    )


def default_partition_name(table: str) -> str:
    """Return the name of the partition for the rows that no other partition of `table` has."""
    return f"{table}_default"


def create_default_partition(table: str) -> str:
    """Return the statement that creates the partition for the rows that no other partition of `table` has."""
    return f"CREATE TABLE {quote(default_partition_name(table))} PARTITION OF {quote(table)} DEFAULT;"


def add_constraint(
    table: str, name: str, definition: str, *, index_exists: bool = False, is_partitioned: bool = False
) -> str:
    """Return the statements that add a constraint; they do not block writes while they check rows or build an index.

    For a key of a partitioned table, PostgreSQL has no such form.
    """
    add = f"ALTER TABLE {quote(table)} ADD CONSTRAINT {quote(name)}"
    key = KEY_CONSTRAINT.fullmatch(definition)
    if is_partitioned and (key is not None or definition.startswith(FOREIGN_KEY)):
        drop = drop_index(name, is_partitioned=True) if index_exists else ""
        return join_statements(BLOCKS_WRITES, drop, f"{add} {definition};")
    if key is None:
        return join_statements(f"{add} {definition} NOT VALID;", validate_constraint(table, name))
    return join_statements(
        "" if index_exists else create_index(name, table, f"UNIQUE btree {key[2]}"),
        f"{add} {key[1]} USING INDEX {quote(name)};",
    )


def validate_constraint(table: str, name: str) -> str:
    """Return the statement that checks the rows that are older than a constraint."""
    return f"ALTER TABLE {quote(table)} VALIDATE CONSTRAINT {quote(name)};"


def drop_constraint(table: str, name: str) -> str:
    """Return the statement that drops a constraint."""
    return f"ALTER TABLE {quote(table)} DROP CONSTRAINT {quote(name)};"


def create_index(name: str, table: str, definition: str, *, is_partitioned: bool = False) -> str:
    """Return the statement that builds an index without blocking writes, except those of a partitioned table."""
    unique = "UNIQUE " if definition.startswith("UNIQUE ") else ""
    method = definition.removeprefix("UNIQUE ")
    if is_partitioned:
        return join_statements(BLOCKS_WRITES, f"CREATE {unique}INDEX {quote(name)} ON {quote(table)} USING {method};")
    return f"CREATE {unique}INDEX CONCURRENTLY {quote(name)} ON {quote(table)} USING {method};"


def drop_index(name: str, *, is_partitioned: bool = False) -> str:
    """Return the statement that drops an index without blocking reads and writes, if the table is not partitioned."""
    return f"DROP INDEX {'' if is_partitioned else 'CONCURRENTLY '}{quote(name)};"


def reindex(name: str) -> str:
    """Return the statement that rebuilds an index without blocking writes."""
    return f"REINDEX INDEX CONCURRENTLY {quote(name)};"


def create_sequence(name: str, definition: str) -> str:
    """Return the statements that create a sequence and start it after the maximum of its column."""
    table, column = definition.rsplit(" ", 1)[1].split(".")
    return join_statements(
        f"CREATE SEQUENCE IF NOT EXISTS {quote(name)};",
        alter_sequence(name, definition),
        f"SELECT setval({literal(quote(name))}, coalesce(max({column}), 0) + 1, false) FROM {table};",  # noqa: S608  a fix
    )


def alter_sequence(name: str, definition: str) -> str:
    """Return the statement that changes a sequence to `definition`."""
    return f"ALTER SEQUENCE {quote(name)} {definition};"


def stamp(revision: str) -> str:
    """Return the statements that stamp a database at no revision with `revision`."""
    return join_statements(
        f"CREATE TABLE IF NOT EXISTS {VERSION_TABLE} (version_num varchar(32) NOT NULL, "
        f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num));",
        f"INSERT INTO {VERSION_TABLE} VALUES ({literal(revision)}) ON CONFLICT DO NOTHING;",  # noqa: S608  a fix
    )


def comment_version_table(revision: str | None) -> str:
    """Return the statement that records in the comment of the version table which code works on `revision`."""
    return f"COMMENT ON TABLE {VERSION_TABLE} IS {literal(compatibility_comment(revision))};"


def restamp(revision: str | None) -> str:
    """Return the statement that replaces the stamped revision, or removes it for None."""
    if revision is None:
        return f"DELETE FROM {VERSION_TABLE};"  # noqa: S608  a fix
    return f"UPDATE {VERSION_TABLE} SET version_num = {literal(revision)};"  # noqa: S608  a fix
