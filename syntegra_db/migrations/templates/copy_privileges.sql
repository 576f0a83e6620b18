  SELECT quote_ident(rolname) INTO owner FROM pg_class JOIN pg_roles ON pg_roles.oid = relowner
  WHERE pg_class.oid = source;
  IF owner <> (SELECT quote_ident(rolname) FROM pg_class JOIN pg_roles ON pg_roles.oid = relowner
               WHERE pg_class.oid = destination) THEN
    EXECUTE format('ALTER TABLE %s OWNER TO %s', destination, owner);
  END IF;
  FOR item IN
    SELECT format('REVOKE ALL ON %s FROM %s', destination, role) AS statement FROM (
      SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS role
      FROM pg_class CROSS JOIN aclexplode(relacl) WHERE pg_class.oid IN (source, destination) AND grantee <> relowner
    ) AS roles
    UNION ALL
    SELECT format('GRANT %s%s ON %s TO %s%s', privilege_type, columns, destination,
                  CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
                  CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM (
      SELECT relacl, '' FROM pg_class WHERE oid = source
      UNION ALL
      SELECT attacl, format(' (%I)', attname) FROM pg_attribute
      WHERE attrelid = source AND attnum > 0 AND NOT attisdropped
    ) AS lists (privileges, columns) CROSS JOIN aclexplode(privileges)
    WHERE pg_get_userbyid(grantee) <> (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = source)
  LOOP
    EXECUTE item.statement;
  END LOOP;
  FOR item IN
    SELECT format('ALTER SEQUENCE %s OWNED BY %s.%I', objid::regclass, destination, attname) AS statement
    FROM pg_depend JOIN pg_class ON pg_class.oid = objid AND relkind = 'S'
    JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
    WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND refobjid = source AND deptype = 'a'
  LOOP
    EXECUTE item.statement;
  END LOOP;
  EXECUTE format('COMMENT ON TABLE %s IS %L', destination, obj_description(source, 'pg_class'));
