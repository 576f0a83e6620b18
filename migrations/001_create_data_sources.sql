-- Revision 001. Create data_sources, the connectors to the external data of clients.
--
-- Generated from alembic/versions/001_create_data_sources.py by `make generate`: change the revision, not this file.
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
  old_path pg_catalog.text := pg_catalog.current_setting('search_path');
  schemas pg_catalog.name[] := pg_catalog.current_schemas(true);
  main_schema pg_catalog.text := pg_catalog.current_schema();
  declared_schemas pg_catalog.name[];
  object pg_catalog.record;
  locked pg_catalog.oid[];
  locked_schemas pg_catalog.name[];
  stamp pg_catalog.text;
  second_schema pg_catalog.text := pg_catalog.current_setting('syntegra_db.schema', true);
  named_schemas pg_catalog.text[];
  other_schemas pg_catalog.text[];
  other_stamp pg_catalog.text;
  other_stamps pg_catalog.text[];
  other_owners pg_catalog.text[];
  other_usable pg_catalog.bool[];
  other_sets pg_catalog.text;
  new_path pg_catalog.text;
  is_system pg_catalog.bool;
  unfinished pg_catalog.text;
  unfinished_direction pg_catalog.text;
  texts pg_catalog.text[];
BEGIN
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
  -- A policy, or a cast of a type, would run its owner's code. It could replace the table until it is locked.
  FOR attempt IN 1 .. 2 LOOP
    FOR object IN
      SELECT pg_class.oid, relname, CASE
        WHEN relkind <> 'r' THEN format('is not an ordinary table (%s); find out who created it, and drop or rename it',
          CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'f' THEN 'foreign table'
      WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'c' THEN 'composite type' WHEN 'S' THEN 'sequence'
      WHEN 'i' THEN 'index' WHEN 'I' THEN 'partitioned index' ELSE 'TOAST table' END)
        WHEN relname = 'alembic_version_steps' AND (pg_get_userbyid(relowner) = current_user OR relowner = (
          SELECT relowner FROM pg_class WHERE relnamespace = pg_namespace.oid AND relname = 'alembic_version'
        )) IS NOT TRUE THEN 'belongs to another role; find out who created it, and drop or rename it'
        WHEN row_security_active(pg_class.oid) THEN
          format('has row-level security; ask its owner to run: ALTER TABLE %I.%I DISABLE ROW LEVEL SECURITY;',
            nspname, relname)
        WHEN cardinality(columns) > (
          SELECT count(*) FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = ANY (columns)
            AND (atttypid = 'pg_catalog.varchar'::regtype OR atttypid = 'pg_catalog.text'::regtype)
            AND attgenerated = '' AND (pg_identify_object(pg_class.tableoid, attrelid, attnum)).identity = format('%I.%I.%I', nspname, relname, attname) AND relfilenode = pg_relation_filenode(attrelid)
        ) THEN 'has other columns than this package creates; find out who created it, and drop or rename it'
      END AS fault
      FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace JOIN (VALUES
        ('alembic_version', ARRAY['version_num']), ('alembic_version_steps', ARRAY['revision', 'direction'])
      ) AS read (name, columns) ON relname = name
      WHERE nspname = main_schema ORDER BY relname
    LOOP
      IF object.fault IS NOT NULL THEN
        RAISE EXCEPTION '% %', object.relname, object.fault;
      ELSIF attempt = 1 THEN
        EXECUTE format('LOCK TABLE ONLY %I.%I IN ACCESS SHARE MODE', main_schema, object.relname);
        locked := locked || object.oid;
      ELSIF (object.oid = ANY (locked)) IS NOT TRUE THEN
        RAISE EXCEPTION '% was replaced while this file read it; run the file again', object.relname;
      ELSIF object.relname = 'alembic_version' THEN
        EXECUTE format('SELECT string_agg(version_num, '' and '' ORDER BY version_num) FROM ONLY %I.alembic_version',
          main_schema) INTO stamp;
      ELSE
        EXECUTE format('SELECT min(revision), min(direction) FROM ONLY %I.alembic_version_steps', main_schema)
          INTO unfinished, unfinished_direction;
      END IF;
    END LOOP;
  END LOOP;
  named_schemas := ARRAY(
    SELECT name FROM (
      SELECT position, CASE WHEN '$user' = ANY (item) THEN current_user
        ELSE coalesce(replace(item[1], '""', '"'), lower(item[2])) END
      FROM regexp_matches(old_path, '"((?:[^"]|"")*)"|([^[:space:],]+)', 'g') WITH ORDINALITY AS items (item, position)
    ) AS items (position, name)
    WHERE name <> '' AND NOT name ~ '^(pg_|information_schema$)' ORDER BY position
  );
  -- Without a revision here, the tables may be in another schema.
  IF stamp IS NULL THEN
    FOR attempt IN 1 .. 2 LOOP
      FOR object IN
    SELECT nspname AS schema, has_schema_privilege(pg_namespace.oid, 'USAGE') AS is_usable,
      has_schema_privilege(pg_namespace.oid, 'USAGE') AND EXISTS (
        SELECT FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relnamespace = pg_namespace.oid AND relname = 'alembic_version' AND relkind = 'r'
          AND attname = 'version_num' AND attgenerated::text = ''
          AND (atttypid = 'pg_catalog.varchar'::regtype OR atttypid = 'pg_catalog.text'::regtype)
          AND has_table_privilege(attrelid, 'SELECT') AND NOT row_security_active(attrelid)
          AND (pg_identify_object(pg_class.tableoid, attrelid, attnum)).identity = format('%I.%I.%I', nspname, relname, attname) AND relfilenode = pg_relation_filenode(attrelid)
      ) AS has_revision,
      (SELECT min(rolname::text) FROM pg_roles
       WHERE (pg_roles.oid = nspowner OR pg_roles.oid = ANY (array_agg(relowner))) AND NOT rolsuper
         AND rolname <> current_user AND rolname <> 'pg_database_owner'
         AND NOT EXISTS (SELECT FROM pg_database WHERE datname = current_database() AND datdba = pg_roles.oid)
      ) AS owner
    FROM pg_namespace JOIN pg_class AS installed ON relnamespace = pg_namespace.oid
      JOIN json_each('{"data_sources": ["id", "client_id", "name", "type", "config_json", "status", "last_run_at", "created_at", "updated_at"],
        "processed_data": ["id", "client_id", "source_id", "source_type", "data", "created_at"],
        "anomaly_log": ["id", "client_id", "source_id", "kpi_name", "detected_at", "value", "expected_value", "deviation", "reason", "severity", "method", "metadata"],
        "clusters": ["id", "client_id", "cluster_id", "cluster_name", "features_json", "centroid", "distance_to_centroid", "silhouette_score", "created_at", "updated_at"],
        "kpi_summary": ["id", "client_id", "source_id", "kpi_name", "kpi_value", "period_start", "period_end", "calculated_at", "metadata"],
        "text_summary": ["id", "client_id", "source_id", "text_field", "sentiment", "sentiment_score", "keywords", "embedding", "language", "created_at"],
        "trend_signals": ["id", "sector", "term", "period_start", "period_end", "frequency", "delta_pct", "status", "metadata", "created_at"]}') AS declared ON relname = key
    WHERE (relkind = 'r' OR relkind = 'p') AND relpersistence <> 't'
      AND NOT nspname ~ '^(pg_|information_schema$)' AND nspname <> '$user' AND json_array_length(value) / 2 <= (
        SELECT count(*) FROM json_array_elements_text(value) AS name JOIN pg_attribute ON attname = name
        WHERE attrelid = installed.oid
      )
    GROUP BY nspname, pg_namespace.oid, nspowner
      LOOP
        IF attempt = 1 THEN
          IF object.has_revision THEN
            EXECUTE format('LOCK TABLE ONLY %I.alembic_version IN ACCESS SHARE MODE', object.schema);
            locked_schemas := locked_schemas || object.schema;
          END IF;
          CONTINUE;
        END IF;
        CONTINUE WHEN main_schema IS NULL AND NOT object.is_usable;
        other_stamp := NULL;
        IF object.has_revision AND object.schema = ANY (locked_schemas) THEN
          EXECUTE format('SELECT max(substring(version_num, ''^[0-9][0-9][0-9]$'')) FROM ONLY %I.alembic_version', object.schema)
            INTO other_stamp;
        END IF;
        other_schemas := other_schemas || object.schema::text;
        other_stamps := other_stamps || other_stamp;
        other_owners := other_owners || object.owner;
        other_usable := other_usable || object.is_usable;
      END LOOP;
    END LOOP;
    SELECT array_agg(name), array_agg(usable), string_agg(concat(quote_ident(name), ' (' || nullif(concat_ws(', ',
        CASE WHEN array_length(other_schemas, 1) > 1 THEN 'revision ' || version END,
        'of role ' || quote_ident(owner)
      ), '') || ')'), ' and ') INTO other_schemas, other_usable, other_sets
    FROM (
      SELECT name, version, owner, usable
      FROM unnest(other_schemas, other_stamps, other_owners, other_usable) AS sets (name, version, owner, usable)
      ORDER BY usable DESC, version DESC NULLS LAST, array_position(named_schemas, name), name COLLATE "C"
    ) AS sets;
  END IF;
  new_path := coalesce(nullif(concat_ws(', ', quote_ident(other_schemas[1]), (
    SELECT string_agg(quote_ident(name), ', ') FROM unnest(named_schemas) AS name
    WHERE name IS DISTINCT FROM other_schemas[1]
  )), ''), 'public');
  is_system := main_schema ~ '^(pg_|information_schema$)';
  IF second_schema <> '' AND second_schema IS DISTINCT FROM main_schema AND NOT second_schema ~ '^(pg_|information_schema$)' THEN
    RAISE EXCEPTION 'the setting syntegra_db.schema names schema %, but the search_path leads to %',
      quote_ident(second_schema), coalesce('schema ' || quote_ident(main_schema), 'no existing schema')
      USING HINT = concat(
        'Run this in the same session before the file: ',
        CASE WHEN to_regnamespace(quote_ident(second_schema)) IS NULL
          THEN format('CREATE SCHEMA %I; ', second_schema) END,
        format('SET search_path = %s;', concat_ws(', ', quote_ident(second_schema), (
          SELECT string_agg(quote_ident(name), ', ') FROM unnest(named_schemas) AS name WHERE name <> second_schema
        ))),
        ' or, for the schema of the search_path: RESET syntegra_db.schema;'
      );
  ELSIF other_sets IS NOT NULL AND (main_schema = ANY (other_schemas)) IS NOT TRUE
     AND (is_system OR (main_schema = second_schema) IS NOT TRUE) THEN
    RAISE EXCEPTION 'the tables of this package are in schema %, but the search_path leads to %', other_sets,
      CASE WHEN is_system THEN 'one of PostgreSQL itself'
        ELSE coalesce('schema ' || quote_ident(main_schema), 'no existing schema') END
      USING HINT = concat(
        CASE WHEN other_usable[1]
          THEN format('Run this in the same session before the file: SET search_path = %s;', new_path)
          ELSE format('Role %1$I may not use that schema. To use it, ask its owner to run: GRANT USAGE ON SCHEMA %2$I '
            'TO %1$I;', current_user, other_schemas[1]) END,
        CASE WHEN NOT is_system AND main_schema IS NOT NULL
          THEN format(' or, for a second set of tables: SET syntegra_db.schema = %I;', main_schema) END
      );
  ELSIF is_system OR second_schema ~ '^(pg_|information_schema$)' THEN
    RAISE EXCEPTION '% leads to a schema of PostgreSQL itself, where no tables can be created',
      CASE WHEN is_system THEN format('the search_path (%s)', old_path)
        ELSE format('the setting syntegra_db.schema (%s)', second_schema) END
      USING HINT = format('Run this in the same session before the file: %sSET search_path = %s;',
        CASE WHEN second_schema ~ '^(pg_|information_schema$)' THEN 'RESET syntegra_db.schema; ' END, new_path);
  ELSIF main_schema IS NULL THEN
    RAISE EXCEPTION 'this role can use no schema of the search_path (%)', old_path
      USING HINT = coalesce((
        SELECT CASE WHEN nspname IS NULL THEN format('Run this before the file: CREATE SCHEMA %I;', name)
          ELSE format('Ask its owner to run: GRANT USAGE ON SCHEMA %I TO %I;', name, current_user) END
        FROM unnest(named_schemas) WITH ORDINALITY AS names (name, position) LEFT JOIN pg_namespace ON nspname = name
        ORDER BY nspname IS NULL, position LIMIT 1
      ), concat(
        'Run this in the same session before the file: ',
        CASE WHEN to_regnamespace('public') IS NULL THEN 'CREATE SCHEMA public; ' END, 'SET search_path = public;'
      ));
  END IF;
  IF unfinished <> '001' THEN
    RAISE EXCEPTION 'the % of revision % is unfinished', unfinished_direction, unfinished
      USING HINT = 'Finish or undo it first. This command prints how: syntegra-db status';
  END IF;
  IF unfinished_direction = 'downgrade' THEN
    RAISE EXCEPTION 'the downgrade of revision 001 is unfinished'
      USING HINT = 'Finish it with the rollback file of the revision, or undo it: syntegra-db upgrade 001';
  ELSIF stamp >= '001' THEN
    RAISE EXCEPTION 'revision 001 is already applied: the database is at revision %', stamp;
  ELSIF stamp IS DISTINCT FROM NULL THEN
    RAISE EXCEPTION 'revision 001 upgrades from no revision, but the database is at %',
      coalesce('revision ' || stamp, 'no revision')
      USING HINT = 'Run the files of migrations/ in ascending order of their numbers.';
  END IF;
  -- Before the end of each transaction, it must not have changed one of these.
  PERFORM set_config('syntegra_db.other_objects', array_to_string(ARRAY(SELECT objects.object FROM (
    SELECT pg_class.oid AS object, format('%I.%I', nspname, relname) AS name
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = ANY (declared_schemas) AND nspname <> main_schema
    UNION ALL
    SELECT pg_type.oid, format('%I.%I', nspname, typname)
    FROM pg_type JOIN pg_namespace ON pg_namespace.oid = typnamespace
    WHERE nspname = ANY (declared_schemas) AND nspname <> main_schema
  ) AS objects), ' '), true);
  -- The file names no schema, so it would find them in that of the extension.
  FOR object IN
    SELECT label, value AS name, (array_agg(kind ORDER BY is_temporary))[1] AS kind,
           (array_agg(nspname::text ORDER BY is_temporary))[1] AS schema, bool_and(is_temporary) AS is_temporary
    FROM json_each(CAST(CASE WHEN unfinished IS NULL THEN '{}'
      ELSE '{}' END AS json)) WITH ORDINALITY AS labels (label, names, label_position)
      CROSS JOIN json_array_elements_text(names) WITH ORDINALITY AS declared (value, position)
      JOIN (
        SELECT 'relation' AS class, CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'f' THEN 'foreign table'
      WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'c' THEN 'composite type' WHEN 'S' THEN 'sequence'
      WHEN 'i' THEN 'index' WHEN 'I' THEN 'partitioned index' ELSE 'TOAST table' END AS kind, relname::text AS name, relnamespace AS namespace
        FROM pg_class
        UNION ALL
        SELECT 'type', CASE WHEN typrelid = 0 THEN 'type' ELSE CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'f' THEN 'foreign table'
      WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'c' THEN 'composite type' WHEN 'S' THEN 'sequence'
      WHEN 'i' THEN 'index' WHEN 'I' THEN 'partitioned index' ELSE 'TOAST table' END END, typname::text, typnamespace
        FROM pg_type LEFT JOIN pg_class ON pg_class.oid = typrelid
        UNION ALL
        SELECT 'function', 'function', proname::text, pronamespace FROM pg_proc
      ) AS installed ON class = CASE WHEN label IN ('type', 'function') THEN label ELSE 'relation' END AND name = value
      JOIN pg_namespace ON pg_namespace.oid = namespace
      CROSS JOIN LATERAL (SELECT namespace = pg_my_temp_schema() AS is_temporary) AS session
    WHERE nspname = ANY (declared_schemas) OR is_temporary AND class <> 'function'
    GROUP BY label, label_position, value, position HAVING NOT bool_or(nspname = main_schema)
    ORDER BY label_position, position LIMIT 1
  LOOP
    RAISE EXCEPTION 'the % % is missing in schema %, and % has the % %, which this file could change', object.label,
      quote_ident(object.name), quote_ident(main_schema), CASE WHEN object.is_temporary THEN 'this session'
        ELSE format('schema %I, which the search_path includes for the extension vector,', object.schema) END,
      concat(CASE WHEN object.is_temporary THEN 'temporary ' END, object.kind), quote_ident(object.name)
      USING HINT = format('%s the %s in schema %I. This command prints the statement: syntegra-db verify',
        CASE WHEN object.is_temporary THEN format('Rename or drop the temporary %s, and create', object.kind)
          ELSE 'Create' END, object.label, main_schema);
  END LOOP;
  -- The file writes to them. Their owner could change them until they are locked.
  FOR attempt IN 1 .. 2 LOOP
    FOR object IN
    SELECT relname, CASE
      WHEN EXISTS (
        SELECT FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid JOIN pg_roles AS creator ON creator.oid = proowner
        WHERE tgrelid = tables.oid AND NOT creator.rolsuper AND creator.rolname <> current_user
      ) THEN 'a trigger of another role'
      WHEN EXISTS (
        SELECT FROM pg_trigger CROSS JOIN regexp_matches(tgqual::text, '[{]([A-Z]+)', 'g') AS node
        WHERE tgrelid = tables.oid AND node[1] <> ALL (ARRAY['ARRAY', 'ARRAYEXPR', 'BOOLEANTEST', 'BOOLEXPR', 'COLLATE', 'COLLATEEXPR', 'CONST', 'DISTINCTEXPR', 'FUNCEXPR', 'NULLTEST', 'OPEXPR', 'RELABELTYPE', 'SCALARARRAYOPEXPR', 'VAR'])
        UNION ALL
        SELECT FROM pg_trigger CROSS JOIN regexp_matches(tgqual::text, ' :(op)?funcid ([0-9]+)', 'g') AS called
          LEFT JOIN pg_proc ON pg_proc.oid = called[2]::oid
        WHERE tgrelid = tables.oid AND (pg_proc.oid < 12000 AND provolatile = 'i') IS NOT TRUE
      ) THEN 'a trigger with a condition that calls more than immutable functions of PostgreSQL (its function can '
        'check the condition instead)'
      WHEN EXISTS (
        SELECT FROM pg_constraint JOIN pg_class AS follower ON follower.oid = conrelid
          JOIN pg_roles AS creator ON creator.oid = follower.relowner
        WHERE confrelid = tables.oid AND NOT creator.rolsuper AND creator.rolname <> current_user
      ) THEN 'a foreign key of another role'
      WHEN owner.rolsuper OR owner.rolname = current_user THEN NULL
      WHEN relkind <> 'r' OR relpersistence <> 'p' OR reloftype <> 0 THEN 'another kind'
      WHEN EXISTS (SELECT FROM pg_trigger WHERE tgrelid = tables.oid) THEN 'a trigger'
      WHEN EXISTS (SELECT FROM pg_rewrite WHERE ev_class = tables.oid) THEN 'a rule'
      WHEN relrowsecurity OR relforcerowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = tables.oid)
        THEN 'row-level security'
      WHEN EXISTS (SELECT FROM pg_inherits WHERE inhparent = tables.oid OR inhrelid = tables.oid)
        THEN 'a parent or child table'
      WHEN EXISTS (SELECT FROM pg_attrdef WHERE adrelid = tables.oid) THEN 'a default or generated column'
      WHEN declared_columns IS DISTINCT FROM (
        SELECT string_agg(concat(attname, ' ', format_type(atttypid, atttypmod),
          CASE WHEN attnotnull THEN ' NOT NULL' END), ', ' ORDER BY attnum)
        FROM pg_attribute WHERE attrelid = tables.oid AND attnum > 0 AND NOT attisdropped
      ) OR EXISTS (
        SELECT FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
        WHERE attrelid = tables.oid AND attnum > 0 AND NOT attisdropped
          AND (typnamespace <> 'pg_catalog'::regnamespace OR attcollation <> typcollation OR attidentity <> '')
      ) THEN 'other columns'
      WHEN EXISTS (SELECT FROM pg_constraint WHERE conrelid = tables.oid AND contype <> 'p' AND contype <> 'n')
        THEN 'another constraint'
      WHEN NOT EXISTS (
        SELECT FROM pg_index WHERE indrelid = tables.oid AND indisprimary AND indnatts = 1 AND indkey[0] = 1
      ) THEN 'no primary key'
      WHEN EXISTS (SELECT FROM pg_index WHERE indrelid = tables.oid AND NOT indisprimary) THEN 'another index'
    END AS part, owner.rolname AS owner
    FROM (VALUES ('alembic_version'::name, 'version_num character varying(32) NOT NULL'), ('alembic_version_steps'::name, 'step integer NOT NULL, revision text NOT NULL, direction text NOT NULL, is_repeated boolean NOT NULL, description text NOT NULL, is_finished boolean NOT NULL, first_id bigint, final_id bigint, last_id bigint, changed_rows bigint')) AS declared (declared_name, declared_columns)
      JOIN pg_class AS tables ON relname = declared_name
      JOIN pg_namespace ON pg_namespace.oid = relnamespace
      JOIN pg_roles AS owner ON owner.oid = relowner
    WHERE nspname = main_schema
      ORDER BY relname
    LOOP
      IF object.part IS NOT NULL THEN
        RAISE EXCEPTION '% of % has %, which could run code as %', object.relname, quote_ident(object.owner),
          object.part, quote_ident(current_user)
          USING HINT = 'Find out who added that, and drop it, or drop or rename the table; or, if you trust it, give the table, the functions of its triggers and the tables that reference it to the role that migrates.';
      ELSIF attempt = 1 THEN
        EXECUTE format('LOCK TABLE ONLY %I.%I IN SHARE ROW EXCLUSIVE MODE', main_schema, object.relname);
      END IF;
    END LOOP;
  END LOOP;
  PERFORM set_config('search_path', string_agg(quote_ident(name), ', ' ORDER BY position), true)
  FROM unnest(declared_schemas || 'pg_temp'::name) WITH ORDINALITY AS path (name, position);
EXCEPTION WHEN raise_exception THEN
  -- A terminal executes control characters, which names can have: they become escapes, as in U&"a\+00000a".
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  GET STACKED DIAGNOSTICS old_path = MESSAGE_TEXT, new_path = PG_EXCEPTION_HINT;
  texts := ARRAY(
    SELECT (
      SELECT string_agg(CASE WHEN token ~ E'[\\u0001-\\u001f\\u007f-\\u009f\\u00ad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u08e2\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2064\\u2066-\\u206f\\ufeff\\ufff9-\\ufffb]' THEN concat(CASE WHEN token ~ '^"' THEN 'U&' END, (
          SELECT string_agg(CASE
            WHEN letter ~ E'[\\u0001-\\u001f\\u007f-\\u009f\\u00ad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u08e2\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2064\\u2066-\\u206f\\ufeff\\ufff9-\\ufffb]' THEN concat(chr(92), '+', lpad(to_hex(ascii(letter)), 6, '0'))
            WHEN letter = chr(92) THEN repeat(letter, 2) ELSE letter END, '' ORDER BY place)
          FROM regexp_split_to_table(token, '') WITH ORDINALITY AS letters (letter, place)
        )) ELSE token END, '' ORDER BY number)
      FROM regexp_matches(part, '"(?:[^"]|"")*"|[^"]+|"', 'g') WITH ORDINALITY AS tokens (matches, number),
        unnest(matches) AS token
    ) FROM unnest(ARRAY[old_path, new_path]) WITH ORDINALITY AS parts (part, position) ORDER BY position
  );
  IF new_path = '' THEN
    RAISE EXCEPTION USING MESSAGE = texts[1];
  END IF;
  RAISE EXCEPTION USING MESSAGE = texts[1], HINT = texts[2];
END
$$;

CREATE TABLE IF NOT EXISTS alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE data_sources (
    id BIGSERIAL NOT NULL,
    client_id BIGINT NOT NULL,
    name VARCHAR(255) NOT NULL,
    type VARCHAR(50) NOT NULL,
    config_json JSONB DEFAULT '{}' NOT NULL,
    status VARCHAR(50) DEFAULT 'idle' NOT NULL,
    last_run_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_data_sources PRIMARY KEY (id),
    CONSTRAINT uq_data_sources_client_id_id UNIQUE (client_id, id)
);

COMMENT ON TABLE data_sources IS 'Connectors to the external data of clients';

COMMENT ON COLUMN data_sources.id IS 'Primary key, from a sequence owned by this column';

COMMENT ON COLUMN data_sources.client_id IS 'Client that owns the row; the clients table belongs to the application';

COMMENT ON COLUMN data_sources.name IS 'Connector name, chosen by the client';

COMMENT ON COLUMN data_sources.type IS 'Connector type, such as simple_csv or api_rest (open set)';

COMMENT ON COLUMN data_sources.config_json IS 'Connector settings; may contain credentials, so never display or log them';

COMMENT ON COLUMN data_sources.status IS 'Connector status, such as idle, processing or error (open set)';

COMMENT ON COLUMN data_sources.last_run_at IS 'Time of the last run; NULL before the first run';

COMMENT ON COLUMN data_sources.created_at IS 'Time when the row was inserted';

COMMENT ON COLUMN data_sources.updated_at IS 'Time when the row was last updated';

CREATE INDEX idx_data_sources_client_id ON data_sources (client_id);

CREATE INDEX idx_data_sources_status ON data_sources (status);

INSERT INTO alembic_version (version_num) VALUES ('001');

DO $$
DECLARE
  old_path pg_catalog.text := pg_catalog.current_setting('search_path');
  main_schema pg_catalog.text := pg_catalog.current_schema();
  mark pg_catalog.record;
  item pg_catalog.record;
  prefix pg_catalog.text;
  missing pg_catalog.text;
  overload pg_catalog.text;
  columns pg_catalog.text;
BEGIN
  -- Other roles can create functions and operators in the schema.
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  -- Without the mark of `syntegra-db tenancy enable`, which only its owner can set, nothing is granted.
  SELECT relkind, relowner, rolsuper OR rolname = current_user AS is_trusted, quote_ident(rolname) AS owner,
         substring(obj_description(pg_class.oid, 'pg_class') FROM '^syntegra_db tenancy {"prefix": "([^"]*)"') AS prefix INTO mark
  FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace JOIN pg_roles ON pg_roles.oid = relowner
  WHERE nspname = main_schema AND relname = 'bound_logins'
    AND starts_with(obj_description(pg_class.oid, 'pg_class'), 'syntegra_db tenancy ');
  IF NOT FOUND THEN
    PERFORM set_config('search_path', old_path, true);
    RETURN;
  END IF;
  IF mark.relkind <> 'r' OR NOT mark.is_trusted THEN
    RAISE EXCEPTION '%.% says that the tables are protected for each client, but it does not belong to % or a superuser',
      quote_ident(main_schema), 'bound_logins', quote_ident(current_user)
      USING HINT = format('If %1$s runs `syntegra-db tenancy`, run ALTER TABLE %2$I.%3$I OWNER '
        'TO %4$I; ALTER FUNCTION %2$I.%5$I() OWNER TO %4$I; else drop or rename the table.',
        mark.owner, main_schema, 'bound_logins', current_user, 'bound_client_id');
  END IF;
  prefix := mark.prefix;
  IF (prefix ~ '^(?!pg_)[a-z_][a-z0-9_]{0,39}$') IS NOT TRUE THEN
    RAISE EXCEPTION 'the comment of %.%, which records the state of `syntegra-db tenancy`, is damaged',
      quote_ident(main_schema), 'bound_logins'
      USING HINT = 'This command prints how to restore it: syntegra-db tenancy status';
  END IF;
  SELECT string_agg(quote_ident(prefix || key), ', ') INTO missing FROM unnest(ARRAY['service', 'reader', 'admin', 'bound']) AS key
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = prefix || key);
  IF missing IS NOT NULL THEN
    RAISE EXCEPTION 'the tables are protected for each client, but these roles are missing: %', missing
      USING HINT = 'Create them: syntegra-db tenancy enable';
  END IF;
  IF NOT EXISTS (
    SELECT FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
    WHERE nspname = main_schema AND proname = 'bound_client_id' AND pronargs = 0 AND proowner = mark.relowner
  ) THEN
    RAISE EXCEPTION 'the function %.%(), which finds the client of a login, is missing or belongs to another role',
      quote_ident(main_schema), 'bound_client_id'
      USING HINT = 'Drop one of another role, and run: syntegra-db tenancy enable';
  END IF;
  SELECT min(format('%I.%I(%s)', nspname, proname, pg_get_function_identity_arguments(pg_proc.oid)))
  FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
  WHERE nspname = main_schema AND proname = 'bound_client_id' AND pronargs > 0 AND pronargs = pronargdefaults INTO overload;
  FOR item IN
    SELECT installed.oid AS id, format('%I.%I', nspname, relname) AS target, relrowsecurity, is_shared,
           ARRAY(
             SELECT sequence FROM unnest(sequences) AS sequence JOIN pg_class ON relname = sequence
             WHERE relnamespace = pg_namespace.oid AND relkind = 'S' AND pg_has_role(relowner, 'USAGE')
           ) AS sequences,
           EXISTS (
             SELECT FROM pg_attribute WHERE attrelid = installed.oid AND attname = 'client_id' AND NOT attisdropped
           ) AS has_client
    FROM (VALUES
      ('data_sources', false, ARRAY['data_sources_id_seq']::text[])
    ) AS declared (name, is_shared, sequences)
      JOIN pg_class AS installed ON relname = name JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = main_schema AND relkind IN ('r', 'p') AND pg_has_role(relowner, 'USAGE')
    ORDER BY relname
  LOOP
    CONTINUE WHEN NOT item.has_client AND NOT item.is_shared;
    IF item.has_client THEN
      FOR missing IN
        SELECT format('CREATE POLICY %I ON %s FOR %s TO %s%s%s', name, item.target, command,
          (SELECT string_agg(quote_ident(prefix || key), ', ') FROM unnest(roles) AS key),
          ' USING (' || replace(using_rows, '{lookup}', format('%I.%I', main_schema, 'bound_client_id')) || ')',
          ' WITH CHECK (' || check_rows || ')')
        FROM (VALUES
          ('client_select', 'SELECT', ARRAY['service', 'reader']::text[], '(client_id = (NULLIF(current_setting(''syntegra.client_id''::text, true), ''''::text))::bigint)', NULL),
          ('client_insert', 'INSERT', ARRAY['service']::text[], NULL, '(client_id = (NULLIF(current_setting(''syntegra.client_id''::text, true), ''''::text))::bigint)'),
          ('client_update', 'UPDATE', ARRAY['service']::text[], '(client_id = (NULLIF(current_setting(''syntegra.client_id''::text, true), ''''::text))::bigint)', '(client_id = (NULLIF(current_setting(''syntegra.client_id''::text, true), ''''::text))::bigint)'),
          ('client_delete', 'DELETE', ARRAY['service']::text[], '(client_id = (NULLIF(current_setting(''syntegra.client_id''::text, true), ''''::text))::bigint)', NULL),
          ('admin_all', 'ALL', ARRAY['admin']::text[], 'true', 'true'),
          ('bound_select', 'SELECT', ARRAY['bound']::text[], '(client_id = {lookup}())', NULL)
        ) AS declared (name, command, roles, using_rows, check_rows)
        WHERE NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = item.id AND polname = name)
      LOOP
        IF overload IS NOT NULL THEN
          RAISE EXCEPTION 'the function % can be called without arguments, so no policy can call %.%()',
            overload, quote_ident(main_schema), 'bound_client_id'
            USING HINT = 'Find out who created it, and drop or rename it.';
        END IF;
        EXECUTE missing;
      END LOOP;
      IF NOT item.relrowsecurity THEN
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', item.target);
      END IF;
    END IF;
    -- After the policies, and no more than is missing.
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns FROM pg_attribute
    WHERE attrelid = item.id AND attnum > 0 AND NOT attisdropped AND attname <> 'id';
    FOR missing IN
      SELECT format('GRANT %s%s ON %s TO %I', privilege, CASE WHEN by_column THEN format(' (%s)', columns) END,
        item.target, prefix || role)
      FROM (VALUES
        (false, 'service', 'SELECT', false),
        (false, 'service', 'DELETE', false),
        (false, 'service', 'INSERT', true),
        (false, 'service', 'UPDATE', true),
        (false, 'admin', 'SELECT', false),
        (false, 'admin', 'DELETE', false),
        (false, 'admin', 'INSERT', true),
        (false, 'admin', 'UPDATE', true),
        (false, 'reader', 'SELECT', false),
        (false, 'bound', 'SELECT', false),
        (true, 'service', 'SELECT', false),
        (true, 'reader', 'SELECT', false),
        (true, 'admin', 'SELECT', false),
        (true, 'admin', 'DELETE', false),
        (true, 'admin', 'INSERT', true),
        (true, 'admin', 'UPDATE', true)
      ) AS declared (is_shared, role, privilege, by_column)
      WHERE declared.is_shared = NOT item.has_client AND CASE WHEN by_column THEN EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = item.id AND attnum > 0 AND NOT attisdropped AND attname <> 'id' AND NOT EXISTS (
          SELECT FROM aclexplode(attacl) WHERE privilege_type = privilege AND pg_get_userbyid(grantee) = prefix || role
        )
      ) ELSE NOT EXISTS (
        SELECT FROM pg_class CROSS JOIN aclexplode(relacl)
        WHERE pg_class.oid = item.id AND privilege_type = privilege AND pg_get_userbyid(grantee) = prefix || role
      ) END
      UNION ALL
      SELECT format('GRANT %s ON SEQUENCE %I.%I TO %I', privilege, main_schema, sequence, prefix || role)
      FROM unnest(item.sequences) AS sequence CROSS JOIN (VALUES
        (false, 'service', 'USAGE'),
        (false, 'admin', 'USAGE'),
        (true, 'admin', 'USAGE')
      ) AS declared (is_shared, role, privilege)
      WHERE declared.is_shared = NOT item.has_client AND NOT EXISTS (
        SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace CROSS JOIN aclexplode(relacl)
        WHERE nspname = main_schema AND relname = sequence AND privilege_type = privilege
          AND pg_get_userbyid(grantee) = prefix || role
      )
    LOOP
      EXECUTE missing;
    END LOOP;
  END LOOP;
  FOR missing IN
    SELECT format('GRANT SELECT ON %I.%I TO %I', nspname, relname, prefix || key)
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace CROSS JOIN unnest(ARRAY['service', 'reader', 'admin', 'bound']) AS key
    WHERE nspname = main_schema AND relname = 'alembic_version' AND relkind = 'r' AND pg_has_role(relowner, 'USAGE')
      AND NOT EXISTS (
        SELECT FROM aclexplode(relacl) WHERE privilege_type = 'SELECT' AND pg_get_userbyid(grantee) = prefix || key
      )
  LOOP
    EXECUTE missing;
  END LOOP;
  PERFORM set_config('search_path', old_path, true);
END
$$;

DO $$
BEGIN
  IF EXISTS (
    SELECT coalesce(relation, objid) AS object FROM pg_catalog.pg_locks
    WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
      AND coalesce(relation, objid) OPERATOR(pg_catalog.=) ANY (pg_catalog.string_to_array(pg_catalog.current_setting('syntegra_db.other_objects'), ' ')::pg_catalog.oid[])
      AND (locktype OPERATOR(pg_catalog.=) 'relation' AND mode OPERATOR(pg_catalog.<>) 'AccessShareLock'
        OR locktype OPERATOR(pg_catalog.=) 'object' AND mode OPERATOR(pg_catalog.=) 'AccessExclusiveLock')
  ) THEN
    RAISE EXCEPTION 'a table was renamed or dropped at the same time, and one of that name in another schema would be changed'
      USING HINT = 'It was rolled back. This shows what is missing: syntegra-db verify';
  END IF;
END
$$;

COMMIT;

\echo Revision 001 applied.
