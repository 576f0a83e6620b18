"""Evaluate a condition row by row, to find the rows whose value makes the server reject the whole query."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.sql import execute_query, execute_raw, literal, quote

if TYPE_CHECKING:
    from sqlalchemy import Connection

# SQLSTATE classes of an error that a value causes: data exception, and program limit exceeded.
VALUE_ERRORS = ("22", "54")
SETTING = "syntegra_db.violations"
# Every supported server has it, and it works in a read-only transaction. Columns hide the variables of the same name.
EVALUATE_EACH_ROW = """
#variable_conflict use_column
DECLARE
  evaluated record;
  is_violation boolean;
  violations bigint := 0;
  first_ids bigint[] := ARRAY[]::bigint[];
BEGIN
  FOR evaluated IN SELECT id, ctid AS address FROM {table} ORDER BY id LOOP
    BEGIN
      is_violation := (SELECT {condition} FROM {table} WHERE ctid = evaluated.address);
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
      is_violation := {failed};
    END;
    IF is_violation THEN
      violations := violations + 1;
      IF violations <= {limit} THEN
        first_ids := first_ids || evaluated.id::bigint;
      END IF;
    END IF;
  END LOOP;
  PERFORM set_config('{setting}', json_build_object('count', violations, 'ids', first_ids)::text, true);
END
"""


def evaluate_each_row(
    connection: Connection, table: str, condition: str, limit: int, *, failed: bool
) -> tuple[int, list[int]]:
    """Return the number of rows that meet `condition`, and the first `limit` ids.

    `failed` is the result for a row whose value the server rejects.
    """
    body = EVALUATE_EACH_ROW.format(
        table=quote(table), condition=condition, failed=failed, limit=limit, setting=SETTING
    )
    execute_raw(connection, f"DO {literal(body)}")
    found = execute_query(connection, f"SELECT current_setting('{SETTING}')::jsonb").scalar_one()
    return found["count"], found["ids"]
