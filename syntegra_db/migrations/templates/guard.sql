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
  IF NOT pg_try_advisory_xact_lock({lock_key}) THEN
    RAISE EXCEPTION 'another migration is running; wait until it ends, then run this file again';
  END IF;
  declared_schemas := ARRAY[main_schema]::name[] || ARRAY(
    SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
    WHERE extname = 'vector' AND nspname = ANY (schemas) AND nspname <> main_schema
  );
  FOR object IN
{untrusted_objects}
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
          {relation_kind})
        WHEN relname = '{step_table}' AND (pg_get_userbyid(relowner) = current_user OR relowner = (
          SELECT relowner FROM pg_class WHERE relnamespace = pg_namespace.oid AND relname = '{version_table}'
        )) IS NOT TRUE THEN 'belongs to another role; find out who created it, and drop or rename it'
        WHEN row_security_active(pg_class.oid) THEN
          format('has row-level security; ask its owner to run: ALTER TABLE %I.%I DISABLE ROW LEVEL SECURITY;',
            nspname, relname)
        WHEN cardinality(columns) > (
          SELECT count(*) FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = ANY (columns)
            AND (atttypid = 'pg_catalog.varchar'::regtype OR atttypid = 'pg_catalog.text'::regtype)
            AND attgenerated = '' AND {is_unchanged}
        ) THEN 'has other columns than this package creates; find out who created it, and drop or rename it'
      END AS fault
      FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace JOIN (VALUES
        ('{version_table}', ARRAY['version_num']), ('{step_table}', ARRAY['revision', 'direction'])
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
      ELSIF object.relname = '{version_table}' THEN
        EXECUTE format('SELECT string_agg(version_num, '' and '' ORDER BY version_num) FROM ONLY %I.{version_table}',
          main_schema) INTO stamp;
      ELSE
        EXECUTE format('SELECT min(revision), min(direction) FROM ONLY %I.{step_table}', main_schema)
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
    WHERE name <> '' AND NOT name ~ '{system_schema}' ORDER BY position
  );
  -- Without a revision here, the tables may be in another schema.
  IF stamp IS NULL THEN
    FOR attempt IN 1 .. 2 LOOP
      FOR object IN
{schemas_with_tables}
      LOOP
        IF attempt = 1 THEN
          IF object.has_revision THEN
            EXECUTE format('LOCK TABLE ONLY %I.{version_table} IN ACCESS SHARE MODE', object.schema);
            locked_schemas := locked_schemas || object.schema;
          END IF;
          CONTINUE;
        END IF;
        CONTINUE WHEN main_schema IS NULL AND NOT object.is_usable;
        other_stamp := NULL;
        IF object.has_revision AND object.schema = ANY (locked_schemas) THEN
          EXECUTE format('{select_revision}', object.schema)
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
  is_system := main_schema ~ '{system_schema}';
  IF second_schema <> '' AND second_schema IS DISTINCT FROM main_schema AND NOT second_schema ~ '{system_schema}' THEN
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
  ELSIF is_system OR second_schema ~ '{system_schema}' THEN
    RAISE EXCEPTION '% leads to a schema of PostgreSQL itself, where no tables can be created',
      CASE WHEN is_system THEN format('the search_path (%s)', old_path)
        ELSE format('the setting syntegra_db.schema (%s)', second_schema) END
      USING HINT = format('Run this in the same session before the file: %sSET search_path = %s;',
        CASE WHEN second_schema ~ '{system_schema}' THEN 'RESET syntegra_db.schema; ' END, new_path);
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
  IF unfinished <> '{revision}' THEN
    RAISE EXCEPTION 'the % of revision % is unfinished', unfinished_direction, unfinished
      USING HINT = 'Finish or undo it first. This command prints how: syntegra-db status';
  END IF;
{revision_guard}
  -- Before the end of each transaction, it must not have changed one of these.
  PERFORM set_config('syntegra_db.other_objects', array_to_string(ARRAY(SELECT objects.object FROM (
{objects_elsewhere}
  ) AS objects), ' '), {is_local});
  -- The file names no schema, so it would find them in that of the extension.
  FOR object IN
{names_elsewhere}
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
{untrusted_part}
      ORDER BY relname
    LOOP
      IF object.part IS NOT NULL THEN
        RAISE EXCEPTION '% of % has %, which could run code as %', object.relname, quote_ident(object.owner),
          object.part, quote_ident(current_user)
          USING HINT = {remedy};
      ELSIF attempt = 1 THEN
        EXECUTE format('LOCK TABLE ONLY %I.%I IN SHARE ROW EXCLUSIVE MODE', main_schema, object.relname);
      END IF;
    END LOOP;
  END LOOP;
  PERFORM set_config('search_path', string_agg(quote_ident(name), ', ' ORDER BY position), {is_local})
  FROM unnest(declared_schemas || 'pg_temp'::name) WITH ORDINALITY AS path (name, position);
EXCEPTION WHEN raise_exception THEN
  -- A terminal executes control characters, which names can have: they become escapes, as in U&"a\+00000a".
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  GET STACKED DIAGNOSTICS old_path = MESSAGE_TEXT, new_path = PG_EXCEPTION_HINT;
  texts := ARRAY(
    SELECT (
      SELECT string_agg(CASE WHEN token ~ E'{unprintable}' THEN concat(CASE WHEN token ~ '^"' THEN 'U&' END, (
          SELECT string_agg(CASE
            WHEN letter ~ E'{unprintable}' THEN concat(chr(92), '+', lpad(to_hex(ascii(letter)), 6, '0'))
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
