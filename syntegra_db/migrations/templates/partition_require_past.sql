  -- A detached partition has rows that the table no longer has.
  SELECT pg_describe_object('pg_class'::regclass, pg_class.oid, 0) INTO obstacle FROM pg_class
  WHERE pg_class.oid = to_regclass(format('%I.%I', schema, {past}))
    AND obj_description(pg_class.oid, 'pg_class') IS DISTINCT FROM {empty_past}
    AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = pg_class.oid AND inhparent = target);
  IF obstacle IS NOT NULL THEN
    RAISE EXCEPTION '% exists, but is no partition of table %', obstacle, target
      USING HINT = format('If its rows belong to the table, attach it again; otherwise rename it. Then run this again. '
        'To rename it: ALTER TABLE %I.%I RENAME TO %I;', schema, {past}, {detached});
  END IF;
