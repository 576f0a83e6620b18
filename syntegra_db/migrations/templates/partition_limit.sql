DO $$
DECLARE
  target regclass := to_regclass(format('%I.%I', current_schema(), {table}));
  zone text := current_setting('TimeZone');
  latest timestamptz;
  months_end timestamptz;
BEGIN
  IF (SELECT relkind = 'p' FROM pg_class WHERE oid = target) THEN
    RETURN;
  END IF;
  PERFORM set_config('TimeZone', 'UTC', true);
  EXECUTE format('SELECT max(%1$I)::timestamptz FROM %2$s WHERE %1$I < ''infinity''', {column}, target) INTO latest;
  -- Rows that services write until the table is partitioned are before the limit too.
  months_end := date_trunc('month', greatest(now() + interval '7 days', latest)) + interval '1 month';
  EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I', target, {check});
  EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (%I < %L) NOT VALID', target, {check}, {column},
    to_char(months_end, 'YYYY-MM-DD HH24:MI:SS+00'));
  PERFORM set_config('TimeZone', zone, true);
END
$$
