"""The statements of a copy and of an upsert, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from psycopg import sql

from syntegra_db.bulk._server_errors import INSUFFICIENT_PRIVILEGE
from syntegra_db.bulk._stage import (
    DROP_STAGE,
    STAGE,
    STAGE_IDENTIFIER,
    copy_step,
    create_stage,
    name_list,
    require_transaction,
    write_in_blocks,
    write_located,
)
from syntegra_db.errors import BulkLoadError
from syntegra_db.sql import qualify_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection, Table

    from syntegra_db.bulk._dumpers import ColumnFormat
    from syntegra_db.bulk._stage import Steps

    # The columns of an update, with an expression unless they get the value of the row.
    Changes = dict[str, sql.SQL | None]
    Statement = Callable[[sql.Composable], sql.Composed]

# Parts of the next two: the columns that the rows do not have, and those on which the role has no privilege.
LEFT_OUT = qualify_calls("""ARRAY(
    SELECT attname::text FROM pg_attribute
    WHERE attrelid = {name}::regclass AND attnum > 0 AND NOT attisdropped AND attname <> ALL ({columns})
)""")
NOT_GRANTED = qualify_calls("""ARRAY(
    SELECT given FROM unnest({columns}::text[]) AS given
    WHERE NOT has_column_privilege({name}::regclass, given, {privilege})
)""")
# EXPLAIN inserts nothing, but waits for the same lock as COPY and keeps it. So nothing else enables or disables
# row-level security between the answer and the load, and a load that begins while it is enabled waits for the answer.
# The last column: whether a trigger on INSERT, or a foreign key to the table itself, could see that a load is not one
# statement.
INSPECT_COPY = qualify_calls("""
    EXPLAIN INSERT INTO {target} DEFAULT VALUES;
    SELECT row_security_active({name}::regclass), {left_out}, {not_insertable}, EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = {name}::regclass AND tgtype & 4 <> 0 AND (NOT tgisinternal OR tgconstrrelid = tgrelid)
    )
""")
# Whether row-level security is active; whether exactly the columns of the key have a unique index that treats NULL as
# equal to NULL; the isolation level; the columns that the rows do not have, and whether one of these needs a value,
# without which ON CONFLICT rejects a row before it searches for its key; and the columns without the privilege.
INSPECT_UPSERT = qualify_calls("""
    SELECT row_security_active({name}::regclass), EXISTS (
        SELECT FROM pg_index AS i
        CROSS JOIN LATERAL (
            SELECT array_agg(attname::text) AS names, bool_and(attnotnull) AS not_null FROM pg_attribute
            WHERE attrelid = indrelid AND attnum = ANY ((indkey::pg_catalog.int2[])[:indnkeyatts - 1])
        ) AS key
        WHERE indrelid = {name}::regclass AND indisunique AND indisvalid AND indimmediate
          AND indpred IS NULL AND indexprs IS NULL AND (not_null OR indnullsnotdistinct)
          AND names @> {key}::text[] AND names <@ {key}::text[]
    ), current_setting('transaction_isolation'), {left_out}, EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = {name}::regclass AND attnum > 0 AND NOT attisdropped AND attname <> ALL ({columns})
          AND attnotnull AND NOT atthasdef AND attidentity = ''
    ), {not_insertable}, {not_updatable}
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
# At these levels MERGE sees the rows that were committed before it got the lock; to PostgreSQL both are the same.
MERGE_ISOLATION_LEVELS = "read committed", "read uncommitted"


def copy_steps(connection: Connection, table: Table, columns: Sequence[ColumnFormat]) -> Steps:
    """Yield the statements that copy the input into `table`, through a temporary table under row-level security."""
    target = _name(connection, table)
    names = {"target": target, "columns": name_list(columns)}
    inspect = sql.SQL(INSPECT_COPY).format(target=target, **_target_literals(target, columns))
    row_security, left_out, not_insertable, as_one_statement = (yield inspect).row
    _require_privilege("INSERT", table, not_insertable)
    if not row_security:
        return (yield copy_step(target, columns, table.name)).written
    # PostgreSQL refuses COPY FROM there, also to a role that every policy lets write all rows.
    require_transaction(connection, "A load under row-level security")
    yield create_stage(target, left_out)

    def statement(source: sql.Composable) -> sql.Composed:
        # In the order of the input, so the ids are too.
        query = sql.SQL("INSERT INTO {target} ({columns}) SELECT {columns} FROM {source} AS given")
        return query.format(source=source, **names)

    if as_one_statement:
        rows = (yield copy_step(STAGE_IDENTIFIER, columns, STAGE)).written
        written = yield from write_located(columns, rows, statement)
    else:
        written = yield from write_in_blocks(columns, statement)
    yield DROP_STAGE
    return written


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
    changes = _changes(connection, table, columns, keys)
    literals = {
        **_target_literals(target, columns),
        "not_updatable": _not_granted(target, "UPDATE", list(changes)),
        "key": sql.Literal([column.name for column in keys]),
    }
    row_security, has_unique_key, isolation, left_out, needs_value, not_insertable, not_updatable = (
        yield sql.SQL(INSPECT_UPSERT).format(**literals)
    ).row
    if not has_unique_key and isolation not in MERGE_ISOLATION_LEVELS:
        raise BulkLoadError(
            f"{table.name} has no unique key on {', '.join(column.name for column in keys)}, and a {isolation}"
            " transaction does not see the rows that other sessions insert, so it would insert them again; use"
            " READ COMMITTED."
        )
    _require_privilege("INSERT", table, not_insertable)
    _require_privilege("UPDATE", table, not_updatable)
    yield create_stage(target, left_out, keys)
    rows = (yield copy_step(STAGE_IDENTIFIER, columns, STAGE)).written
    if has_unique_key and not needs_value:
        statement = _insert_statement(target, columns, keys, changes)
    else:
        # Without the lock, two calls at once would both find no row and insert the same key twice.
        limit = max(1, round(1000 * lock_timeout))
        before, _ = (yield sql.SQL(SET_LOCK_TIMEOUT).format(limit=sql.Literal(limit))).row
        yield sql.SQL(LOCK_UPSERTS).format(**literals)
        yield sql.SQL(RESET_LOCK_TIMEOUT).format(limit=sql.Literal(before))
        flags = sql.SQL(", ").join(
            sql.SQL("pg_catalog.bool_or({} IS NULL)").format(sql.Identifier(key.name)) for key in keys
        )
        nulls = (yield sql.SQL("SELECT {} FROM {}").format(flags, STAGE_IDENTIFIER)).row
        statement = _merge_statement(target, columns, dict(zip(keys, nulls, strict=True)), changes)
    if row_security:
        written = yield from write_located(columns, rows, statement)
    else:
        written = (yield statement(STAGE_IDENTIFIER)).written
    yield DROP_STAGE
    return written


def _insert_statement(
    target: sql.Identifier, columns: Sequence[ColumnFormat], keys: Sequence[ColumnFormat], changes: Changes
) -> Statement:
    # Two calls at once lock the rows in the same order, so they do not deadlock.
    query = sql.SQL(
        "INSERT INTO {target} ({columns}) SELECT {columns} FROM {source} AS given ORDER BY {keys}"
        " ON CONFLICT ({keys}) DO {action}"
    )
    names = {"target": target, "columns": name_list(columns), "keys": name_list(keys)}
    return lambda source: query.format(source=source, action=_action(changes, "excluded"), **names)


def _merge_statement(
    target: sql.Identifier, columns: Sequence[ColumnFormat], keys: Mapping[ColumnFormat, bool], changes: Changes
) -> Statement:
    """Return the MERGE of a relation; `keys` says which columns of the key have NULLs in it."""
    query = sql.SQL(
        "MERGE INTO {target} AS stored USING {source} AS given ON {same} WHEN MATCHED THEN {action}"
        " WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({values})"
    )
    # IS NOT DISTINCT FROM matches NULLs, but cannot use an index or a hash.
    same = sql.SQL(" AND ").join(
        sql.SQL("stored.{0} IS NOT DISTINCT FROM given.{0}" if has_nulls else "stored.{0} = given.{0}").format(
            sql.Identifier(key.name)
        )
        for key, has_nulls in keys.items()
    )
    values = sql.SQL(", ").join(sql.Identifier("given", column.name) for column in columns)
    action = sql.SQL("") if changes else sql.SQL("DO ")
    names = {
        "target": target,
        "columns": name_list(columns),
        "same": same,
        "values": values,
        "action": action + _action(changes, "given"),
    }
    return lambda source: query.format(source=source, **names)


def _action(changes: Changes, source: str) -> sql.Composed:
    """Return the action on a row that exists, with values of `source`."""
    if not changes:
        return sql.SQL("NOTHING").format()
    assignments = (
        sql.SQL("{} = {}").format(sql.Identifier(name), expression or sql.Identifier(source, name))
        for name, expression in changes.items()
    )
    return sql.SQL("UPDATE SET ") + sql.SQL(", ").join(assignments)


def _changes(
    connection: Connection, table: Table, columns: Sequence[ColumnFormat], keys: Sequence[ColumnFormat]
) -> Changes:
    """Return the columns that an update changes: all but the key, and those that the models set in every update."""
    changes: Changes = {column.name: None for column in columns if column not in keys}
    names = {column.name for column in columns}
    for column in table.columns:
        if column.onupdate is not None and column.name not in names:
            expression = str(cast("Any", column.onupdate).arg.compile(dialect=connection.dialect))
            changes[column.name] = sql.SQL(expression)
    return changes


def _require_privilege(privilege: str, table: Table, denied: Sequence[str]) -> None:
    """Raise `BulkLoadError` for columns without the privilege: the server's error does not name them."""
    if denied:
        raise BulkLoadError(
            f"The role of this session has no privilege {privilege} on {table.name} ({', '.join(denied)}), such as a"
            " service on the ids of tables with policies; leave this out of the rows, or load with another role.",
            sqlstate=INSUFFICIENT_PRIVILEGE,
        )


def _target_literals(target: sql.Identifier, columns: Sequence[ColumnFormat]) -> dict[str, sql.Composable]:
    names = [column.name for column in columns]
    literals = {"name": sql.Literal(target.as_string(None)), "columns": sql.Literal(names)}
    return {
        **literals,
        "left_out": sql.SQL(LEFT_OUT).format(**literals),
        "not_insertable": _not_granted(target, "INSERT", names),
    }


def _not_granted(target: sql.Identifier, privilege: str, columns: list[str]) -> sql.Composed:
    return sql.SQL(NOT_GRANTED).format(
        name=sql.Literal(target.as_string(None)), columns=sql.Literal(columns), privilege=sql.Literal(privilege)
    )


def _name(connection: Connection, table: Table) -> sql.Identifier:
    """Return the name of `table` on `connection`, which may translate the names of schemas."""
    return sql.Identifier(*filter(None, (connection.schema_for_object(table), table.name)))
