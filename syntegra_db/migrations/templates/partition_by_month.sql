DO $$
DECLARE
  schema text := current_schema();
  target regclass := to_regclass(format('%I.%I', schema, {table}));
  source regclass := target;
  destination regclass;
  zone text := current_setting('TimeZone');
  reasons text;
  moves text;
  owner text;
  primary_key text;
  months_end timestamptz;
  item record;
  statements text[];
  statement text;
BEGIN
{require_table}
  IF (SELECT relkind = 'p' FROM pg_class WHERE oid = target) THEN
    RETURN;
  END IF;
  EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', target);
{checks}
  PERFORM set_config('TimeZone', 'UTC', true);
  SELECT substring(pg_get_constraintdef(oid) FROM '''([^'']+)''')::timestamptz INTO months_end
  FROM pg_constraint WHERE conrelid = target AND conname = {check} AND convalidated;
  SELECT conname INTO primary_key FROM pg_constraint WHERE conrelid = target AND contype = 'p';
  IF months_end IS NULL OR primary_key IS NULL THEN
    RAISE EXCEPTION 'table % has no primary key, or no validated constraint %', target, {check};
  END IF;
  -- The definitions name the table as it is called now, which is the new one's name later.
  statements := ARRAY(
    SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', target, conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE conrelid = target AND contype IN ('u', 'f') ORDER BY contype DESC, conname
  ) || ARRAY(
    SELECT pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indrelid = target AND indisvalid AND relname <> {partition_key}
      AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND conrelid = target)
    ORDER BY relname
  );
  EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I PRIMARY KEY USING INDEX %3$I', target,
    primary_key, {partition_key});
  FOR item IN
    SELECT relname, {index_name} AS new_name
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = target AND NOT indisprimary
  LOOP
    EXECUTE format('ALTER INDEX %I.%I RENAME TO %I', schema, item.relname, item.new_name);
  END LOOP;
  EXECUTE format('ALTER TABLE %s RENAME TO %I', target, {past});
  EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING ALL EXCLUDING INDEXES) PARTITION BY RANGE (%I)', schema,
    {table}, source, {column});
  destination := to_regclass(format('%I.%I', schema, {table}));
  EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', destination, {check});
{copy_privileges}
  EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I PRIMARY KEY ({key})', destination, primary_key);
  FOREACH statement IN ARRAY statements LOOP
    EXECUTE statement;
  END LOOP;
  EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (MINVALUE) TO (%L)', destination, source,
    to_char(months_end, 'YYYY-MM-DD HH24:MI:SS+00'));
  EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', source, {check});
  FOR item IN
    SELECT {month_name} AS name, to_char(month, 'YYYY-MM-DD HH24:MI:SS+00') AS first,
           to_char(month + interval '1 month', 'YYYY-MM-DD HH24:MI:SS+00') AS last
    FROM generate_series(months_end, date_trunc('month', now()) + {months} * interval '1 month', '1 month') AS month
  LOOP
    EXECUTE format('CREATE TABLE %I.%I PARTITION OF %s FOR VALUES FROM (%L) TO (%L)', schema, item.name, destination,
      item.first, item.last);
    EXECUTE format('ALTER TABLE %I.%I OWNER TO %s', schema, item.name, owner);
  END LOOP;
  EXECUTE format('CREATE TABLE %I.%I PARTITION OF %s DEFAULT', schema, {default}, destination);
  EXECUTE format('ALTER TABLE %I.%I OWNER TO %s', schema, {default}, owner);
  PERFORM set_config('TimeZone', zone, true);
END
$$
