"""Find what supplied expressions would call, before the server plans them: planning runs functions that are immutable.

The server parses each expression as a view, which runs nothing, and lists what the view depends on.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from syntegra_db.catalog import existing_tables, short_lock_timeout
from syntegra_db.sql import catalog_query, execute_query, quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

VIEW = "syntegra_db_supplied_value"
# What a user created has an oid of 12000 or more, except what belongs to the extension. An ENUM type calls nothing, and
# a table without row-level security neither. The rest of the conditions are calls that name no function: the functions
# of PostgreSQL that read any table or type by name, and the casts to JSON and to the type of the column.
CALLED = catalog_query("""
    WITH view AS (
      SELECT pg_rewrite.oid AS rule, ev_class AS oid, atttypid AS type,
             ARRAY(SELECT CAST(found[1] AS oid)
                   FROM regexp_matches(CAST(ev_action AS text), 'funcid ([0-9]+)', 'g') AS found)
             AS functions
      FROM pg_rewrite JOIN pg_attribute ON attrelid = ev_class AND attnum = 1
      WHERE ev_class = to_regclass(:view)
    ), foreign_casts AS (
      SELECT c.oid, castsource, casttarget FROM pg_cast AS c
      WHERE castfunc >= 12000
        AND NOT EXISTS (SELECT FROM pg_depend JOIN pg_extension AS e ON refobjid = e.oid
                        WHERE classid = 'pg_cast'::regclass AND objid = c.oid AND deptype = 'e' AND extname = 'vector')
    )
    SELECT pg_describe_object(refclassid, refobjid, 0)
    FROM view JOIN pg_depend AS d ON classid = 'pg_rewrite'::regclass AND objid = rule
    LEFT JOIN pg_class AS c ON refclassid = 'pg_class'::regclass AND c.oid = refobjid
    LEFT JOIN pg_type AS t ON refclassid = 'pg_type'::regclass AND t.oid = refobjid
    LEFT JOIN pg_type AS element ON element.oid = t.typelem
    WHERE refobjid <> view.oid
      AND (refclassid = 'pg_proc'::regclass OR refclassid = 'pg_operator'::regclass
           OR CASE WHEN t.typelem <> 0 THEN element.typtype ELSE t.typtype END <> 'e'
           OR c.relkind IN ('v', 'f') OR c.relrowsecurity)
      AND NOT EXISTS (SELECT FROM pg_depend AS member JOIN pg_extension AS e ON member.refobjid = e.oid
                      WHERE member.classid = d.refclassid AND member.objid = d.refobjid AND member.deptype = 'e'
                        AND extname = 'vector')
    UNION ALL
    SELECT pg_describe_object('pg_proc'::regclass, p.oid, 0)
    FROM view JOIN pg_proc AS p ON p.oid = ANY (functions)
    WHERE p.oid < 12000 AND proname ~ '_to_xml|^pg_input_'
    UNION ALL
    SELECT pg_describe_object('pg_cast'::regclass, foreign_casts.oid, 0)
    FROM foreign_casts CROSS JOIN view
    WHERE castsource = type OR castsource = 'text'::regtype
       OR (casttarget = 'json'::regtype
           AND EXISTS (SELECT FROM pg_proc AS p WHERE p.oid = ANY (functions) AND proname ~ 'json'))
    ORDER BY 1
""")


@dataclass(frozen=True)
class Problem:
    """Why a value is no expression that may be planned: the server's error, or an object that it uses."""

    error: str | None = None
    used: str | None = None

    def describe(self, kind: str) -> str:
        """Return a sentence about a value for a column of the type `kind`."""
        if self.used is None:
            return f"neither a value of type {kind} nor an SQL expression ({self.error})."
        return (
            f"it uses {self.used}, which can run code that a user created. Use only what PostgreSQL itself or pgvector "
            "provides."
        )


def find_problems(connection: Connection, values: Mapping[str, str]) -> dict[str, Problem]:
    """Return why a value, by `table.column`, is no expression that may be planned.

    Of a plain value, such as a word, the reason has no meaning. Nothing is run, and the views are rolled back.

    Raises:
        LockTimeout: see `short_lock_timeout`.
    """
    tables = existing_tables(connection)
    problems = {}
    for name, value in values.items():
        table = name.partition(".")[0]
        if table in tables and (problem := _find_problem(connection, table, value)):
            problems[name] = problem
    return problems


def _find_problem(connection: Connection, table: str, value: str) -> Problem | None:
    with short_lock_timeout(connection):
        # The view would wait for the same lock.
        execute_query(connection, f"SELECT FROM ONLY {quote(table)}")
        try:
            create = f"CREATE VIEW {VIEW} AS SELECT ({value}) AS value FROM ONLY {quote(table)}"  # noqa: S608  judged
            _execute_one(connection, create)
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            return Problem(error=error.diag.message_primary)
        called = connection.scalars(CALLED, {"view": VIEW}).first()
    return None if called is None else Problem(used=called)


def _execute_one(connection: Connection, statement: str) -> None:
    """Execute one statement without a result: the server rejects a second one in the text."""
    # psycopg uses the protocol for one statement if the result is binary.
    with closing(connection.connection.cursor(binary=True)) as cursor:
        cursor.execute(statement)
