"""The statements of a copy and of an upsert, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from psycopg import sql

from syntegra_db.errors import BulkLoadError
from syntegra_db.sql import qualify_calls

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from sqlalchemy import Connection, Table

    from syntegra_db.bulk._dumpers import ColumnFormat

# Qualified, so the search_path cannot hide the session's own temporary table.
STAGE = "syntegra_db_upsert"
STAGE_IDENTIFIER = sql.Identifier("pg_temp", STAGE)
# Whether exactly the columns of the key have a unique index that treats NULL as equal to NULL; the isolation level; the
# columns that the rows do not have; and whether one of these needs a value, without which ON CONFLICT rejects a row
# before it searches for its key.
INSPECT_TARGET = qualify_calls("""
    SELECT EXISTS (
        SELECT FROM pg_index AS i
        CROSS JOIN LATERAL (
            SELECT array_agg(attname::text) AS names, bool_and(attnotnull) AS not_null FROM pg_attribute
            WHERE attrelid = indrelid AND attnum = ANY ((indkey::pg_catalog.int2[])[:indnkeyatts - 1])
        ) AS key
        WHERE indrelid = {name}::regclass AND indisunique AND indisvalid AND indimmediate
          AND indpred IS NULL AND indexprs IS NULL AND (not_null OR indnullsnotdistinct)
          AND names @> {key}::text[] AND names <@ {key}::text[]
    ), current_setting('transaction_isolation'), ARRAY(
        SELECT attname::text FROM pg_attribute
        WHERE attrelid = {name}::regclass AND attnum > 0 AND NOT attisdropped AND attname <> ALL ({columns})
    ), EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = {name}::regclass AND attnum > 0 AND NOT attisdropped AND attname <> ALL ({columns})
          AND attnotnull AND NOT atthasdef AND attidentity = ''
    )
""")
LOCK_UPSERTS = qualify_calls(
    "SELECT pg_advisory_xact_lock(hashtextextended('syntegra_db.bulk upsert ' || {name}::regclass::oid, 0))"
)
# A smaller limit of the session is kept, and set again afterwards.
SET_LOCK_TIMEOUT = qualify_calls("""
    SELECT setting, pg_catalog.set_config(name, CASE setting::integer WHEN 0 THEN {limit}::text
                                                ELSE LEAST(setting::integer, {limit})::text END, true)
    FROM pg_catalog.pg_settings WHERE name = 'lock_timeout'
""")
RESET_LOCK_TIMEOUT = "SELECT pg_catalog.set_config('lock_timeout', {limit}, true)"
CREATE_STAGE = """
    CREATE TEMPORARY TABLE {stage} (LIKE {target} INCLUDING CONSTRAINTS INCLUDING STORAGE) ON COMMIT DROP
"""
# At these levels MERGE sees the rows that were committed before it got the lock; to PostgreSQL both are the same.
MERGE_ISOLATION_LEVELS = "read committed", "read uncommitted"

DO_NOTHING = sql.SQL("DO NOTHING")


class CopyStep(NamedTuple):
    """A COPY FROM STDIN of the input."""

    query: sql.Composed
    table: str


class StepResult(NamedTuple):
    """The result of a step: its first row, if any, and the number of rows that it wrote."""

    row: Any
    written: int


if TYPE_CHECKING:
    Steps = Generator[sql.Composed | CopyStep, StepResult, int]


def copy_steps(connection: Connection, table: Table, columns: Sequence[ColumnFormat]) -> Steps:
    """Yield the statement that copies the input into `table`."""
    result = yield _copy(_name(connection, table), columns, table.name)
    return result.written


def upsert_steps(
    connection: Connection,
    table: Table,
    columns: Sequence[ColumnFormat],
    keys: Sequence[ColumnFormat],
    lock_timeout: float,
) -> Steps:
    """Yield the statements that upsert the input into `table` through a temporary table.

    `lock_timeout` is the limit for the advisory lock, in seconds.
    """
    target = _name(connection, table)
    literals = {
        "name": sql.Literal(target.as_string(None)),
        "columns": sql.Literal([column.name for column in columns]),
        "key": sql.Literal([column.name for column in keys]),
    }
    names = {"stage": STAGE_IDENTIFIER, "target": target, "columns": _list(columns), "keys": _list(keys)}
    has_unique_key, isolation, left_out, needs_value = (yield sql.SQL(INSPECT_TARGET).format(**literals)).row
    if not has_unique_key and isolation not in MERGE_ISOLATION_LEVELS:
        raise BulkLoadError(
            f"{table.name} has no unique key on {', '.join(column.name for column in keys)}, and a {isolation}"
            " transaction does not see the rows that other sessions insert, so it would insert them again; use"
            " READ COMMITTED."
        )
    yield sql.SQL(CREATE_STAGE).format(**names)
    if left_out:
        drops = sql.SQL(", ").join(sql.SQL("DROP COLUMN {}").format(sql.Identifier(name)) for name in left_out)
        yield sql.SQL("ALTER TABLE {stage} {drops}").format(drops=drops, **names)
    # With this index the server reports a row that has the key of an earlier one.
    yield sql.SQL("CREATE UNIQUE INDEX ON {stage} ({keys}) NULLS NOT DISTINCT").format(**names)
    yield _copy(STAGE_IDENTIFIER, columns, STAGE)
    if has_unique_key and not needs_value:
        # Two calls at once lock the rows in the same order, so they do not deadlock.
        query = (
            "INSERT INTO {target} ({columns}) SELECT {columns} FROM {stage} ORDER BY {keys}"
            " ON CONFLICT ({keys}) {action}"
        )
        update = _update_clause(connection, table, columns, keys, "excluded")
        result = yield sql.SQL(query).format(action=sql.SQL("DO ") + update if update else DO_NOTHING, **names)
    else:
        # Without the lock, two calls at once would both find no row and insert the same key twice.
        limit = max(1, round(1000 * lock_timeout))
        before, _ = (yield sql.SQL(SET_LOCK_TIMEOUT).format(limit=sql.Literal(limit))).row
        yield sql.SQL(LOCK_UPSERTS).format(**literals)
        yield sql.SQL(RESET_LOCK_TIMEOUT).format(limit=sql.Literal(before))
        flags = sql.SQL(", ").join(
            sql.SQL("pg_catalog.bool_or({} IS NULL)").format(sql.Identifier(key.name)) for key in keys
        )
        nulls = (yield sql.SQL("SELECT {flags} FROM {stage}").format(flags=flags, **names)).row
        query = (
            "MERGE INTO {target} AS stored USING {stage} AS given ON {same} WHEN MATCHED THEN {action}"
            " WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({values})"
        )
        # IS NOT DISTINCT FROM matches NULLs, but cannot use an index or a hash.
        same = sql.SQL(" AND ").join(
            sql.SQL("stored.{0} IS NOT DISTINCT FROM given.{0}" if has_nulls else "stored.{0} = given.{0}").format(
                sql.Identifier(key.name)
            )
            for key, has_nulls in zip(keys, nulls, strict=True)
        )
        action = _update_clause(connection, table, columns, keys, "given") or DO_NOTHING
        values = sql.SQL(", ").join(sql.Identifier("given", column.name) for column in columns)
        result = yield sql.SQL(query).format(same=same, action=action, values=values, **names)
    yield sql.SQL("DROP TABLE {stage}").format(**names)
    return result.written


def _update_clause(
    connection: Connection,
    table: Table,
    columns: Sequence[ColumnFormat],
    keys: Sequence[ColumnFormat],
    source: str,
) -> sql.Composed | None:
    """Return the update of all columns except the key, and of those that the models set in every update, if any."""
    changes: list[sql.Composable] = [
        sql.SQL("{} = {}").format(sql.Identifier(column.name), sql.Identifier(source, column.name))
        for column in columns
        if column not in keys
    ]
    names = {column.name for column in columns}
    for column in table.columns:
        if column.onupdate is not None and column.name not in names:
            expression = str(cast("Any", column.onupdate).arg.compile(dialect=connection.dialect))
            changes.append(sql.SQL("{} = {}").format(sql.Identifier(column.name), sql.SQL(expression)))
    return sql.SQL("UPDATE SET ") + sql.SQL(", ").join(changes) if changes else None


def _name(connection: Connection, table: Table) -> sql.Identifier:
    """Return the name of `table` on `connection`, which may translate the names of schemas."""
    return sql.Identifier(*filter(None, (connection.schema_for_object(table), table.name)))


def _copy(target: sql.Identifier, columns: Sequence[ColumnFormat], table: str) -> CopyStep:
    return CopyStep(sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(target, _list(columns)), table)


def _list(columns: Sequence[ColumnFormat]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
