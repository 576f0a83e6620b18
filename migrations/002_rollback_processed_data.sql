-- Revert revision 002 and delete all rows of its tables. Its upgrade: Create processed_data, the normalised records of clients.
--
-- Generated from alembic/versions/002_create_processed_data.py by `make generate`: change the revision, not this file.
-- Run it with psql; it needs no options. It applies completely or not at all: on an error, psql exits with status 3.

\set ON_ERROR_STOP on
\set QUIET on

BEGIN;

-- A session that waits for a lock blocks all later writers. After a lock timeout, run the file again.
SET LOCAL lock_timeout = '500ms';
-- Nor does a stopped psql keep its locks.
SET LOCAL idle_in_transaction_session_timeout = '5s';

-- Other roles can create functions and operators in the schema. The search_path is pg_catalog until that is checked.
DO $$
DECLARE
  schemas pg_catalog.name[] := pg_catalog.current_schemas(true);
  main_schema pg_catalog.text := pg_catalog.current_schema();
  declared_schemas pg_catalog.name[];
  object pg_catalog.record;
  kind_of_table pg_catalog.text;
  stamp pg_catalog.text;
  other_schema pg_catalog.name;
BEGIN
  IF main_schema IS NULL THEN
    RAISE EXCEPTION 'no schema of the search_path exists; create one: CREATE SCHEMA …;';
  END IF;
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  IF NOT pg_try_advisory_xact_lock(('x' || left(encode(sha256(convert_to(
       'syntegra_db:' || main_schema || '.alembic_version', 'UTF8')), 'hex'), 16))::bit(64)::bigint) THEN
    RAISE EXCEPTION 'another migration is running; wait until it ends, then run this file again';
  END IF;
  declared_schemas := ARRAY[main_schema]::name[] || ARRAY(
    SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
    WHERE extname = 'vector' AND nspname = ANY (schemas) AND nspname <> main_schema
  );
  FOR object IN
    WITH objects AS (
      SELECT 'ROUTINE' AS kind, 'function' AS label, oid, 'pg_proc'::regclass AS catalog, proname AS name,
             pronamespace AS namespace, proowner AS owner,
             format('(%s)', pg_get_function_identity_arguments(oid)) AS arguments
      FROM pg_proc
      UNION ALL
      SELECT 'OPERATOR', 'operator', oid, 'pg_operator'::regclass, oprname, oprnamespace, oprowner,
             format('(%s, %s)', CASE WHEN oprleft = 0 THEN 'NONE' ELSE format_type(oprleft, NULL) END,
                    format_type(oprright, NULL))
      FROM pg_operator
      UNION ALL
      SELECT 'TYPE', 'type', oid, 'pg_type'::regclass, typname, typnamespace, typowner, ''
      FROM pg_type WHERE typtype <> 'c' AND typcategory <> 'A'
    ), used AS (
      SELECT kind, name FROM objects WHERE namespace = 'pg_catalog'::regnamespace
      UNION
      SELECT kind, name FROM objects JOIN pg_depend ON classid = catalog AND objid = oid AND deptype = 'e'
      WHERE refclassid = 'pg_extension'::regclass
        AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'vector')
    )
    SELECT label, kind,
           format('%I.%s%s', nspname, CASE kind WHEN 'OPERATOR' THEN name ELSE quote_ident(name) END, arguments)
           AS identity,
           quote_ident(rolname) AS creator, quote_ident(current_user) AS role, quote_ident(nspname) AS schema
    FROM objects JOIN pg_namespace ON pg_namespace.oid = namespace JOIN pg_roles ON pg_roles.oid = owner
    WHERE nspname = ANY (declared_schemas::name[]) AND NOT rolsuper AND rolname <> current_user
      AND (kind, name) IN (SELECT kind, name FROM used)
    ORDER BY 1, 3
  LOOP
    RAISE EXCEPTION 'the % %, which % created, could run as % during this migration',
      object.label, object.identity, object.creator, object.role
      USING HINT = format('DROP %1$s %2$s; or, if you trust it, ALTER %1$s %2$s OWNER TO %3$s; and then REVOKE CREATE '
        'ON SCHEMA %4$s FROM %5$s, PUBLIC;', object.kind, object.identity, object.role, object.schema, object.creator);
  END LOOP;
  SELECT relkind INTO kind_of_table FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
  WHERE nspname = main_schema AND relname = 'alembic_version';
  IF kind_of_table = 'r' THEN
    EXECUTE format('SELECT string_agg(version_num, '' and '' ORDER BY version_num) FROM %I.alembic_version', main_schema)
      INTO stamp;
  ELSIF kind_of_table IS NOT NULL THEN
    RAISE EXCEPTION 'alembic_version is not an ordinary table; find out who created it, and drop or rename it';
  END IF;
  SELECT nspname INTO other_schema FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
  WHERE nspname = ANY (schemas) AND nspname <> main_schema AND relkind IN ('r', 'p')
    AND relname IN ('alembic_version', 'data_sources')
  GROUP BY nspname HAVING count(*) = 2 ORDER BY array_position(schemas, nspname) LIMIT 1;
  IF stamp IS NULL AND other_schema IS NOT NULL
     AND current_setting('syntegra_db.schema', true) IS DISTINCT FROM main_schema THEN
    RAISE EXCEPTION 'the tables of this package are in schema %, but the search_path leads to schema %',
      quote_ident(other_schema), quote_ident(main_schema)
      USING HINT = (
        SELECT format('Run this in the same session before the file: SET search_path = %I, %s; or, for a second set '
          'of tables: SET syntegra_db.schema = %L;', other_schema, string_agg(quote_ident(name), ', '), main_schema)
        FROM unnest(schemas) AS name WHERE name NOT IN ('pg_catalog', other_schema)
      );
  END IF;
  IF stamp IS DISTINCT FROM '002' THEN
    RAISE EXCEPTION 'this file reverts revision 002, but the database is at %',
      coalesce('revision ' || stamp, 'no revision')
      USING HINT = 'Revert the revisions one by one, the newest first.';
  END IF;
  PERFORM set_config('search_path', string_agg(quote_ident(name), ', ' ORDER BY position), true)
  FROM unnest(declared_schemas || 'pg_temp'::name) WITH ORDINALITY AS path (name, position);
END
$$;

DROP TABLE processed_data;

UPDATE alembic_version SET version_num='001' WHERE alembic_version.version_num = '002';

COMMIT;

\echo Revision 002 reverted.
