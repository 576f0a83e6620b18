"""Functions, operators, types and views of another role with the names that the package's SQL uses.

A call of one advances a sequence, which a rollback does not undo, and fails.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from psycopg import sql

from support.commands import ROOT

if TYPE_CHECKING:
    import psycopg

SOURCES = ("syntegra_db", "alembic", "migrations", "scripts")
# SQLAlchemy, Alembic and psycopg send these.
FUNCTIONS_OF_LIBRARIES = ("to_regtype", "current_schema", "version", "pg_table_is_visible", "format_type", "array_agg")
TYPES = (
    *(
        "name",
        "text",
        "varchar",
        "char",
        '"char"',
        "oid",
        "regclass",
        "regtype",
        "regnamespace",
        "int2",
        "int4",
        "int8",
    ),
    *("float8", "numeric", "bool", "timestamptz", "jsonb", "xid", "text[]", "name[]", "oid[]", "int2[]", '"char"[]'),
    *("public.vector", "anyelement", "anyarray"),
)
OPERATORS = ("=", "<>", "<", ">", "<=", ">=", "||", "~", "~~", "+", "-", "*", "/", "&", ">>", "@>", "<@", "<=>")
DOMAINS = (
    "text",
    "name",
    "oid",
    "int8",
    "int4",
    "int2",
    "bool",
    "float8",
    "numeric",
    "timestamptz",
    "varchar",
    "jsonb",
)
CALLS = "SELECT last_value, is_called FROM {}.shadow_calls"
# A shadow that cannot be created, such as one with an argument of a type that only C functions have, is left out.
PLANT = """
DO $plant$
DECLARE
  body pg_catalog.text;
  one pg_catalog.record;
BEGIN
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog', true);
  PERFORM set_config('check_function_bodies', 'off', true), set_config('client_min_messages', 'error', true);
  body := format($$BEGIN PERFORM pg_catalog.nextval('%I.shadow_calls');
    RAISE EXCEPTION 'a shadow was called'; END$$, {schema});
  EXECUTE format('CREATE SEQUENCE %I.shadow_calls', {schema});
  EXECUTE format('CREATE FUNCTION %I.shadow_check(anyelement) RETURNS bool LANGUAGE plpgsql AS %L', {schema}, body);
  FOR one IN
    SELECT DISTINCT ON (name, signature) name, signature, returned FROM (
      SELECT proname AS name, pg_get_function_identity_arguments(oid) AS signature,
             format_type(prorettype, NULL) AS returned FROM pg_proc
      WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY ({functions})
      UNION ALL
      SELECT proname, concat_ws(', ', arguments[1], arguments[2]), format_type(prorettype, NULL)
      FROM pg_proc, (SELECT ARRAY[a] FROM unnest({types}) AS a
                     UNION ALL SELECT ARRAY[a, b] FROM unnest({types}) AS a, unnest({types}) AS b) AS given (arguments)
      WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY ({functions})
        AND pronargs = cardinality(arguments)
      UNION ALL
      SELECT proname, (SELECT string_agg(CASE WHEN position = number THEN a ELSE format_type(kind, NULL) END, ', '
                                         ORDER BY position)
                       FROM unnest(proargtypes) WITH ORDINALITY AS given (kind, position)),
             format_type(prorettype, NULL)
      FROM pg_proc, generate_series(1, 4) AS number, unnest({types}) AS a
      WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY ({functions}) AND pronargs BETWEEN 3 AND 4
        AND number <= pronargs
      UNION ALL
      SELECT DISTINCT proname, signature, 'text' FROM pg_proc,
        unnest(ARRAY['', 'VARIADIC text[]', 'VARIADIC anyarray', 'text, VARIADIC text[]', 'text, VARIADIC anyarray',
                     'anyelement, anyelement']) AS signature
      WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY ({functions})
    ) AS shadows
  LOOP
    BEGIN
      EXECUTE format('CREATE FUNCTION %I.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L',
        {schema}, one.name, one.signature, one.returned, body);
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP;
  FOR one IN SELECT a, b FROM unnest({types}) AS a, unnest({types}) AS b LOOP
    BEGIN
      EXECUTE format('CREATE FUNCTION %I.shadow_operator(%s, %s) RETURNS bool LANGUAGE plpgsql AS %L',
        {schema}, one.a, one.b, body);
      FOR i IN 1 .. cardinality({operators}) LOOP
        EXECUTE format('CREATE OPERATOR %I.%s (FUNCTION = %1$I.shadow_operator, LEFTARG = %3$s, RIGHTARG = %4$s)',
          {schema}, ({operators})[i], one.a, one.b);
      END LOOP;
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP;
  FOR one IN SELECT unnest({domains}) AS name LOOP
    EXECUTE format('CREATE DOMAIN %I.%I AS %2$I CHECK (%1$I.shadow_check(VALUE))', {schema}, one.name);
  END LOOP;
  FOR one IN SELECT relname AS name, string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS columns
             FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
             WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0
               AND atttypid <> ALL ('{{anyarray,_pg_statistic}}'::regtype[])
             GROUP BY relname LOOP
    EXECUTE format('CREATE VIEW %I.%I AS SELECT %s FROM %2$I WHERE %1$I.shadow_check(true)',
      {schema}, one.name, one.columns);
    EXECUTE format('GRANT SELECT ON %I.%I TO PUBLIC', {schema}, one.name);
  END LOOP;
END
$plant$
"""


def used_functions() -> list[str]:
    """Return what looks like a call in the files of the package, also of functions of Python, which have no shadow."""
    files = (file for folder in SOURCES for file in (ROOT / folder).rglob("*") if file.suffix in {".py", ".sql"})
    names = {name for file in files for name in re.findall(r"\b([a-z_]\w+)\(", file.read_text(encoding="utf-8"))}
    return sorted({*names, *FUNCTIONS_OF_LIBRARIES})


def plant_shadows(connection: psycopg.Connection[tuple[object, ...]], schema: str) -> None:
    """Create the shadows in `schema` as the role of `connection`.

    In the temporary schema, PostgreSQL finds no functions and operators, so there are none.
    """
    is_temporary = schema == "pg_temp"
    values = {
        "functions": [] if is_temporary else used_functions(),
        "types": [*TYPES],
        "operators": [] if is_temporary else [*OPERATORS],
        "domains": [*DOMAINS],
    }
    literals = {name: sql.Literal(value) + sql.SQL("::text[]") for name, value in values.items()}
    connection.execute(sql.SQL(PLANT).format(schema=sql.Literal(schema), **literals))


def count_calls(connection: psycopg.Connection[tuple[object, ...]], schema: str) -> object:
    """Return how often a shadow in `schema` was called."""
    row = connection.execute(sql.SQL(CALLS).format(sql.Identifier(schema))).fetchone()
    assert row is not None
    return row[0] if row[1] else 0
