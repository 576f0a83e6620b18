-- Compares the analytics tables of the current schema with the revision of the database, {revision} or later, and with the
-- newest, {newest}, if it is at another revision. It only reads.
--
-- Generated from the manifests by `make generate`: change tools/templates/, not this file.
-- Run it with psql, by -f or on standard input. Each row is OK, MISSING, DIFFERENT, or EXTRA: not part of the revision.
-- If anything is missing or different, psql exits with status 3.

\set ON_ERROR_STOP on
\set QUIET on
\set VERBOSITY terse

BEGIN READ ONLY;

-- Other roles can create functions and operators in the schema: this script calls those of pg_catalog.
SELECT coalesce(pg_catalog.current_schema(), '') AS schema,
  pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true) AS search_path \gset
-- Definitions name no schema if the search_path has the schemas of tables and extension.
SELECT
  EXISTS (SELECT FROM pg_class WHERE relname = '{version_table}' AND relkind = 'r'
          AND relnamespace = to_regnamespace(quote_ident(:'schema'))) AS stamped,
  set_config('search_path', concat_ws(', ', quote_ident(nullif(:'schema', '')),
    (SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
     WHERE extname = 'vector'), 'pg_temp'), true) AS search_path \gset
\set revision ''
-- A query that names the version table would fail if the table does not exist.
\if :stamped
  SELECT coalesce(string_agg(version_num, ' and ' ORDER BY version_num), '') AS revision
  FROM :"schema".{version_table} \gset
\endif
SELECT CASE WHEN :'revision' IN ({revisions}) THEN :'revision' ELSE '{newest}' END AS declared \gset
SELECT set_config('syntegra.declared', :'declared', true) \gset

-- The queries of the catalog are those of `syntegra-db verify`.
WITH declared (since, until, relation, kind, name, definition) AS (
  VALUES
{expected}
),
expected AS (
  SELECT relation, kind, name, definition FROM declared
  WHERE since <= :'declared' AND (until IS NULL OR until > :'declared')
),
tables AS (
{tables}
),
columns AS (
{columns}
),
constraints AS (
{constraints}
),
indexes AS (
{indexes}
),
sequences AS (
{sequences}
),
types AS (
{types}
),
parts AS (
  SELECT table_oid, 'column' AS kind, name,
    concat(type, ' COLLATE ' || "collation", ' ' || nullability, ' DEFAULT ' || "default", ' STORAGE ' || storage)
      AS definition
  FROM columns
  UNION ALL SELECT table_oid, 'constraint', name, definition FROM constraints
  UNION ALL SELECT table_oid, 'index', name, definition FROM indexes
  UNION ALL SELECT table_oid, 'sequence', name, definition FROM sequences
),
installed AS (
  SELECT tables.name::text AS relation, parts.kind, parts.name::text, definition
  FROM parts JOIN tables ON oid = table_oid
  UNION ALL
  SELECT name, 'table', name,
    concat((SELECT count(*) FROM columns WHERE table_oid = oid), ' columns',
      CASE WHEN persistence <> 'permanent' THEN ', ' || persistence END,
      CASE WHEN kind IN ('view', 'foreign table') THEN ', ' || kind END,
      ', partitioned by ' || partition_key)
  FROM tables
  UNION ALL
  SELECT '', 'type', name, array_to_string(labels, ', ') FROM types
),
compared AS (
  SELECT relation, kind, name, expected.definition AS declared, installed.definition AS found,
    CASE
      WHEN installed.definition IS NULL THEN 'MISSING'
      WHEN expected.definition IS NULL THEN 'EXTRA'
      WHEN installed.definition = expected.definition THEN 'OK'
      -- A rebuild chooses the method, parameters and precision of a vector index by the number of rows.
      WHEN {is_equivalent_index} THEN 'OK'
      ELSE 'DIFFERENT'
    END AS result
  FROM expected FULL JOIN installed USING (relation, kind, name)
  -- If the table is missing, or a view has its name, that is one row: its columns, indexes and so on are not listed.
  WHERE kind IN ('type', 'table')
    OR relation IN (SELECT name FROM tables WHERE tables.kind NOT IN ('view', 'foreign table'))
  UNION ALL
  SELECT '', 'extension', 'vector', 'CREATE EXTENSION vector;', extversion,
    CASE WHEN extversion IS NULL THEN 'MISSING' ELSE 'OK' END
  FROM (VALUES (1)) AS one_row LEFT JOIN pg_extension ON extname = 'vector'
  UNION ALL
  SELECT '', 'revision', '', '{revision}', stamp,
    CASE WHEN stamp >= '{revision}' THEN 'OK' WHEN stamp = '' THEN 'MISSING' ELSE 'DIFFERENT' END
  FROM (VALUES (:'revision')) AS version (stamp)
),
report AS (
  SELECT result,
    row_number() OVER (
      ORDER BY relation,
        array_position('{{extension,revision,type,table,column,index,constraint,sequence}}', kind), name
    ) AS position,
    format('%-10s %-14s %-11s %-40s ', result, relation, kind, CASE kind WHEN 'table' THEN '' ELSE name END)
      || CASE result WHEN 'MISSING' THEN 'expected: ' || declared ELSE found END
      || CASE result WHEN 'DIFFERENT' THEN format(E'\n%79sexpected: %s', '', declared) ELSE '' END AS line
  FROM compared
  WHERE kind <> 'column' OR result <> 'OK'
)
SELECT string_agg(line, E'\n' ORDER BY position) AS report,
  count(*) FILTER (WHERE result IN ('MISSING', 'DIFFERENT')) > 0 AS is_different,
  format('Analytics tables of schema %s in database %s', :'schema', current_database()) AS title
FROM report \gset

\echo :title
\echo :report
\if :is_different
  DO $$
  BEGIN
    RAISE EXCEPTION 'the analytics tables do not match revision %: see the rows MISSING and DIFFERENT above',
      pg_catalog.current_setting('syntegra.declared');
  END
  $$;
\endif
COMMIT;
\echo The analytics tables match revision :declared.
