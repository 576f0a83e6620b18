DECLARE
  old_path pg_catalog.text := pg_catalog.current_setting('search_path');
  main_schema pg_catalog.text := {schema};
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
         substring(obj_description(pg_class.oid, 'pg_class') FROM {mark_pattern}) AS prefix INTO mark
  FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace JOIN pg_roles ON pg_roles.oid = relowner
  WHERE nspname = main_schema AND relname = {bindings_table}
    AND starts_with(obj_description(pg_class.oid, 'pg_class'), {mark});
  IF NOT FOUND THEN
    PERFORM set_config('search_path', old_path, true);
    RETURN;
  END IF;
  IF mark.relkind <> 'r' OR NOT mark.is_trusted THEN
    RAISE EXCEPTION '%.% says that the tables are protected for each client, but it does not belong to % or a superuser',
      quote_ident(main_schema), {bindings_table}, quote_ident(current_user)
      USING HINT = format('If %1$s runs `syntegra-db tenancy`, run ALTER TABLE %2$I.%3$I OWNER '
        'TO %4$I; ALTER FUNCTION %2$I.%5$I() OWNER TO %4$I; else drop or rename the table.',
        mark.owner, main_schema, {bindings_table}, current_user, {lookup_function});
  END IF;
  prefix := mark.prefix;
  IF (prefix ~ {prefix_format}) IS NOT TRUE THEN
    RAISE EXCEPTION 'the comment of %.%, which records the state of `syntegra-db tenancy`, is damaged',
      quote_ident(main_schema), {bindings_table}
      USING HINT = 'This command prints how to restore it: syntegra-db tenancy status';
  END IF;
  SELECT string_agg(quote_ident(prefix || key), ', ') INTO missing FROM unnest(ARRAY[{role_keys}]) AS key
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = prefix || key);
  IF missing IS NOT NULL THEN
    RAISE EXCEPTION 'the tables are protected for each client, but these roles are missing: %', missing
      USING HINT = 'Create them: syntegra-db tenancy enable';
  END IF;
  IF NOT EXISTS (
    SELECT FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
    WHERE nspname = main_schema AND proname = {lookup_function} AND pronargs = 0 AND proowner = mark.relowner
  ) THEN
    RAISE EXCEPTION 'the function %.%(), which finds the client of a login, is missing or belongs to another role',
      quote_ident(main_schema), {lookup_function}
      USING HINT = 'Drop one of another role, and run: syntegra-db tenancy enable';
  END IF;
  {lookup_overload} INTO overload;
  FOR item IN
    SELECT installed.oid AS id, format('%I.%I', nspname, relname) AS target, relrowsecurity, is_shared,
           ARRAY(
             SELECT sequence FROM unnest(sequences) AS sequence JOIN pg_class ON relname = sequence
             WHERE relnamespace = pg_namespace.oid AND relkind = 'S' AND pg_has_role(relowner, 'USAGE')
           ) AS sequences,
           EXISTS (
             SELECT FROM pg_attribute WHERE attrelid = installed.oid AND attname = {client_column} AND NOT attisdropped
           ) AS has_client
    FROM (VALUES
      {tables}
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
          ' USING (' || replace(using_rows, {lookup}, format('%I.%I', main_schema, {lookup_function})) || ')',
          ' WITH CHECK (' || check_rows || ')')
        FROM (VALUES
          {policies}
        ) AS declared (name, command, roles, using_rows, check_rows)
        WHERE NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = item.id AND polname = name)
      LOOP
        IF overload IS NOT NULL THEN
          RAISE EXCEPTION 'the function % can be called without arguments, so no policy can call %.%()',
            overload, quote_ident(main_schema), {lookup_function}
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
    WHERE attrelid = item.id AND attnum > 0 AND NOT attisdropped AND attname <> {id_column};
    FOR missing IN
      SELECT format('GRANT %s%s ON %s TO %I', privilege, CASE WHEN by_column THEN format(' (%s)', columns) END,
        item.target, prefix || role)
      FROM (VALUES
        {table_grants}
      ) AS declared (is_shared, role, privilege, by_column)
      WHERE declared.is_shared = NOT item.has_client AND CASE WHEN by_column THEN EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = item.id AND attnum > 0 AND NOT attisdropped AND attname <> {id_column} AND NOT EXISTS (
          SELECT FROM aclexplode(attacl) WHERE privilege_type = privilege AND pg_get_userbyid(grantee) = prefix || role
        )
      ) ELSE NOT EXISTS (
        SELECT FROM pg_class CROSS JOIN aclexplode(relacl)
        WHERE pg_class.oid = item.id AND privilege_type = privilege AND pg_get_userbyid(grantee) = prefix || role
      ) END
      UNION ALL
      SELECT format('GRANT %s ON SEQUENCE %I.%I TO %I', privilege, main_schema, sequence, prefix || role)
      FROM unnest(item.sequences) AS sequence CROSS JOIN (VALUES
        {sequence_grants}
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
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace CROSS JOIN unnest(ARRAY[{role_keys}]) AS key
    WHERE nspname = main_schema AND relname = {version_table} AND relkind = 'r' AND pg_has_role(relowner, 'USAGE')
      AND NOT EXISTS (
        SELECT FROM aclexplode(relacl) WHERE privilege_type = 'SELECT' AND pg_get_userbyid(grantee) = prefix || key
      )
  LOOP
    EXECUTE missing;
  END LOOP;
  PERFORM set_config('search_path', old_path, true);
END
