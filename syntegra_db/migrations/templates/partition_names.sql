  -- Detached partitions keep their names, and those of their indexes.
  WITH names (name) AS (
    VALUES ({past}), ({default})
    UNION ALL
    SELECT {month_name} FROM generate_series(
      date_trunc('month', now() AT TIME ZONE 'UTC') + {first_month} * interval '1 month',
      date_trunc('month', now() AT TIME ZONE 'UTC') + {months} * interval '1 month', '1 month'
    ) AS month
    UNION ALL
    SELECT {index_name} FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indrelid = target AND NOT indisprimary AND relname <> {partition_key}
    UNION ALL
    SELECT {partition_key}
  ), found AS (
    SELECT pg_describe_object('pg_class'::regclass, pg_class.oid, 0) AS description,
           coalesce(indrelid, CASE WHEN relkind IN ('r', 'p') THEN pg_class.oid END) AS table_oid
    FROM pg_class LEFT JOIN pg_index ON indexrelid = pg_class.oid
    WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relname IN (SELECT name FROM names)
      AND indrelid IS DISTINCT FROM target
    UNION ALL
    SELECT pg_describe_object('pg_type'::regclass, oid, 0), NULL FROM pg_type
    WHERE typnamespace = to_regnamespace(quote_ident(current_schema())) AND typname IN (SELECT name FROM names)
      AND typrelid = 0
  )
  SELECT string_agg(description, ', ' ORDER BY description),
         string_agg(DISTINCT format('ALTER TABLE %s SET SCHEMA detached;', table_oid::regclass), ' ')
           FILTER (WHERE table_oid IS NOT NULL)
  INTO reasons, moves FROM found;
  IF reasons IS NOT NULL THEN
    RAISE EXCEPTION 'table % cannot be partitioned, because the names of its partitions are in use: %', target, reasons
      USING HINT = concat('Rename these objects, and run this again', '; or move detached partitions to another '
        'schema: CREATE SCHEMA IF NOT EXISTS detached; ' || moves);
  END IF;
