"""What is sent for a copy and for an upsert, in order; `loading` sends it, with or without asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from psycopg import sql

from syntegra_db.bulk.errors import BulkLoadError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from sqlalchemy import Connection, Dialect, Table

    from syntegra_db.bulk._dumpers import ColumnFormat

# In the schema of the session's own temporary tables, whatever its search_path says.
STAGE = "syntegra_db_upsert"
STAGE_IDENTIFIER = sql.Identifier("pg_temp", STAGE)
# Whether a unique key stands on the columns, not one whose NULL is equal to no other; which columns the rows do not
# have; and whether one of these needs a value, without which ON CONFLICT refuses a row before it looks for its key.
INSPECT_TARGET = """
    SELECT EXISTS (
        SELECT FROM pg_index AS i
        CROSS JOIN LATERAL (
            SELECT array_agg(attname::text) AS names, bool_and(attnotnull) AS not_null FROM pg_attribute
            WHERE attrelid = indrelid AND attnum = ANY ((indkey::int2[])[:indnkeyatts - 1])
        ) AS key
        WHERE indrelid = {table}::regclass AND indisunique AND indisvalid AND indimmediate
          AND indpred IS NULL AND indexprs IS NULL AND (not_null OR indnullsnotdistinct)
          AND names @> {key}::text[] AND names <@ {key}::text[]
    ), current_setting('transaction_isolation'), ARRAY(
        SELECT attname::text FROM pg_attribute
        WHERE attrelid = {table}::regclass AND attnum > 0 AND NOT attisdropped AND attname <> ALL ({columns})
    ), EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = {table}::regclass AND attnum > 0 AND NOT attisdropped AND attname <> ALL ({columns})
          AND attnotnull AND NOT atthasdef AND attidentity = ''
    )
"""
LOCK_UPSERTS = "SELECT pg_advisory_xact_lock(hashtextextended('syntegra_db.bulk upsert ' || {table}::regclass::oid, 0))"
CREATE_STAGE = """
    CREATE TEMPORARY TABLE {stage} (LIKE {table} INCLUDING CONSTRAINTS INCLUDING STORAGE) ON COMMIT DROP
"""
# In these, which are one to PostgreSQL, MERGE sees what was committed before it got the lock.
MERGE_ISOLATION_LEVELS = "read committed", "read uncommitted"


class Target(NamedTuple):
    """The table that the rows are for, with its name on a connection."""

    table: Table
    name: sql.Identifier
    dialect: Dialect


def resolve_target(connection: Connection, table: Table) -> Target:
    """Return `table` as the target on `connection`, which may translate the names of schemas."""
    schema = connection.schema_for_object(table)
    return Target(table, sql.Identifier(*filter(None, (schema, table.name))), connection.dialect)


class StatementStep(NamedTuple):
    """SQL whose first row, and number of rows written, is wanted."""

    query: sql.Composed


class CopyStep(NamedTuple):
    """A COPY FROM STDIN of the input."""

    query: sql.Composed
    into: str


class StepResult(NamedTuple):
    """What a step gave: its first row if it has one, and the number of rows that it wrote."""

    row: Any
    written: int


if TYPE_CHECKING:
    Steps = Generator[StatementStep | CopyStep, StepResult, int]


def copy_steps(target: Target, columns: Sequence[ColumnFormat]) -> Steps:
    """Yield what copies the input into `target`."""
    copied = yield CopyStep(_copy(target.name, columns), target.table.name)
    return copied.written


def upsert_steps(target: Target, columns: Sequence[ColumnFormat], keys: Sequence[ColumnFormat]) -> Steps:
    """Yield what upserts the input into `target`, by way of a temporary table."""
    literal = sql.Literal(target.name.as_string(None))
    names = {"columns": [column.name for column in columns], "key": [column.name for column in keys]}
    literals = {part: sql.Literal(value) for part, value in names.items()}
    unique, isolation, left_out, lacking = (yield _statement(INSPECT_TARGET, table=literal, **literals)).row
    if not unique and isolation not in MERGE_ISOLATION_LEVELS:
        raise BulkLoadError(
            f"No unique key of {target.table.name} stands on {', '.join(column.name for column in keys)}, and in a"
            f" transaction that is {isolation} rows of others stay unseen and would be added twice; use READ COMMITTED."
        )
    yield _statement(CREATE_STAGE, stage=STAGE_IDENTIFIER, table=target.name)
    if left_out:
        drops = sql.SQL(", ").join(sql.SQL("DROP COLUMN {}").format(sql.Identifier(name)) for name in left_out)
        yield _statement("ALTER TABLE {stage} {drops}", stage=STAGE_IDENTIFIER, drops=drops)
    # The server then says which row has the key of an earlier one.
    yield _statement(
        "CREATE UNIQUE INDEX ON {stage} ({keys}) NULLS NOT DISTINCT", stage=STAGE_IDENTIFIER, keys=_column_list(keys)
    )
    yield CopyStep(_copy(STAGE_IDENTIFIER, columns), STAGE)
    if unique and not lacking:
        done = yield _insert(target, columns, keys)
    else:
        # Between two that look for the same key at once, each would find none and add a row.
        yield _statement(LOCK_UPSERTS, table=literal)
        nulls = (yield _statement("SELECT {nulls} FROM {stage}", nulls=_null_flags(keys), stage=STAGE_IDENTIFIER)).row
        done = yield _merge(target, columns, keys, nulls)
    yield _statement("DROP TABLE {stage}", stage=STAGE_IDENTIFIER)
    return done.written


def _insert(target: Target, columns: Sequence[ColumnFormat], keys: Sequence[ColumnFormat]) -> StatementStep:
    changes = _set_clauses(target, columns, keys, "excluded")
    # In the order of the key, so that two at once wait for each other rather than lock crosswise.
    return _statement(
        "INSERT INTO {target} ({columns}) SELECT {columns} FROM {stage} ORDER BY {keys} ON CONFLICT ({keys}) {action}",
        target=target.name,
        columns=_column_list(columns),
        stage=STAGE_IDENTIFIER,
        keys=_column_list(keys),
        action=sql.SQL("DO UPDATE SET ") + sql.SQL(", ").join(changes) if changes else sql.SQL("DO NOTHING"),
    )


def _null_flags(keys: Sequence[ColumnFormat]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("bool_or({} IS NULL)").format(sql.Identifier(key.name)) for key in keys)


def _merge(
    target: Target, columns: Sequence[ColumnFormat], keys: Sequence[ColumnFormat], nulls: Sequence[bool | None]
) -> StatementStep:
    """Return the MERGE; `nulls` tells which columns of the key have a NULL among the given rows."""
    changes = _set_clauses(target, columns, keys, "given")
    # IS NOT DISTINCT FROM finds NULLs and cannot use an index or a hash.
    same = [
        sql.SQL("stored.{0} IS NOT DISTINCT FROM given.{0}" if has_nulls else "stored.{0} = given.{0}").format(
            sql.Identifier(key.name)
        )
        for key, has_nulls in zip(keys, nulls, strict=True)
    ]
    return _statement(
        "MERGE INTO {target} AS stored USING {stage} AS given ON {same} WHEN MATCHED THEN {action}"
        " WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({values})",
        target=target.name,
        stage=STAGE_IDENTIFIER,
        same=sql.SQL(" AND ").join(same),
        action=sql.SQL("UPDATE SET ") + sql.SQL(", ").join(changes) if changes else sql.SQL("DO NOTHING"),
        columns=_column_list(columns),
        values=sql.SQL(", ").join(sql.Identifier("given", column.name) for column in columns),
    )


def _set_clauses(
    target: Target, columns: Sequence[ColumnFormat], keys: Sequence[ColumnFormat], source: str
) -> list[sql.Composable]:
    """Return what an update sets: the columns given but for the key, and what the models set on every update."""
    given = {column.name for column in columns}
    changes: list[sql.Composable] = [
        sql.SQL("{} = {}").format(sql.Identifier(column.name), sql.Identifier(source, column.name))
        for column in columns
        if column not in keys
    ]
    for column in target.table.columns:
        if column.onupdate is not None and column.name not in given:
            expression = str(cast("Any", column.onupdate).arg.compile(dialect=target.dialect))
            changes.append(sql.SQL("{} = {}").format(sql.Identifier(column.name), sql.SQL(expression)))
    return changes


def _copy(table: sql.Identifier, columns: Sequence[ColumnFormat]) -> sql.Composed:
    return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(table, _column_list(columns))


def _column_list(columns: Sequence[ColumnFormat]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)


def _statement(query: str, **parts: sql.Composable) -> StatementStep:
    return StatementStep(sql.SQL(query).format(**parts))
