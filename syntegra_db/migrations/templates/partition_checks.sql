  SELECT string_agg(reason, '; ' ORDER BY reason) INTO reasons FROM (
    SELECT format('%s reads it', pg_describe_object('pg_class'::regclass, ev_class, 0))
    FROM pg_depend JOIN pg_rewrite ON pg_rewrite.oid = objid
    WHERE classid = 'pg_rewrite'::regclass AND refclassid = 'pg_class'::regclass AND refobjid = target
      AND ev_class <> target
    UNION
    SELECT format('%s reads it', pg_describe_object(classid, objid, 0))
    FROM pg_depend LEFT JOIN pg_policy ON classid = 'pg_policy'::regclass AND pg_policy.oid = objid
    WHERE refclassid = 'pg_class'::regclass AND refobjid = target
      AND (classid = 'pg_proc'::regclass OR polrelid <> target)
    UNION
    SELECT format('%s uses its row type', pg_describe_object(classid, objid, objsubid))
    FROM pg_depend JOIN pg_type ON pg_type.oid = refobjid
    WHERE refclassid = 'pg_type'::regclass AND deptype = 'n'
      AND (typrelid = target OR typelem IN (SELECT oid FROM pg_type WHERE typrelid = target))
    UNION
    SELECT format('foreign key %I of %s references it', conname, conrelid::regclass)
    FROM pg_constraint WHERE contype = 'f' AND confrelid = target
    UNION
{own_parts}
    UNION
    SELECT format('unique index %s has no column %I', indexrelid::regclass, {column})
    FROM pg_index WHERE indrelid = target AND indisunique AND NOT indisprimary AND NOT (
      SELECT attnum = ANY (indkey) FROM pg_attribute WHERE attrelid = target AND attname = {column})
    UNION
    SELECT format('constraint %I of it is an exclusion constraint', conname)
    FROM pg_constraint WHERE conrelid = target AND contype = 'x'
    UNION
    SELECT format('constraint %I of it is not validated', conname)
    FROM pg_constraint WHERE conrelid = target AND NOT convalidated AND conname <> {check}
    UNION
    SELECT format('column %I of it is an identity column', attname)
    FROM pg_attribute WHERE attrelid = target AND attidentity <> ''
    UNION
    SELECT format('column %I of it can be NULL', attname)
    FROM pg_attribute WHERE attrelid = target AND attname = {column} AND NOT attnotnull
    UNION
    SELECT format('it inherits from or is inherited by %s',
      CASE inhparent WHEN target THEN inhrelid::regclass ELSE inhparent::regclass END)
    FROM pg_inherits WHERE target IN (inhparent, inhrelid)
  ) AS found (reason);
  IF reasons IS NOT NULL THEN
    RAISE EXCEPTION 'table % cannot be partitioned in place: %', target, reasons
      USING HINT = 'Drop these objects, run this again, and create them again on the partitioned table.';
  END IF;
{names}
