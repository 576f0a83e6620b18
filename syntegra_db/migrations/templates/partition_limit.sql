DO $$
DECLARE
  target regclass := to_regclass(format('%I.%I', current_schema(), {table}));
  zone text := current_setting('TimeZone');
  latest timestamptz;
  months_end timestamptz;
  installed_end timestamptz;
BEGIN
{require_table}
  IF (SELECT relkind = 'p' FROM pg_class WHERE oid = target) THEN
    RETURN;
  END IF;
  PERFORM set_config('TimeZone', 'UTC', true);
  EXECUTE format('SELECT max(%I)::timestamptz FROM %s', {column}, target) INTO latest;
  IF latest >= {years_end} THEN
    RAISE EXCEPTION 'rows of table % are later than the year 9999, so they belong to no month', target
      USING HINT = {find_late_rows};
  END IF;
  months_end := date_trunc('month', greatest(now(), latest)) + {margin} * interval '1 month';
  SELECT substring(pg_get_constraintdef(oid) FROM '''([^'']+)''')::timestamptz INTO installed_end
  FROM pg_constraint WHERE conrelid = target AND conname = {check};
  -- New rows fulfil the CHECK that is there, so a lower limit could exclude one.
  IF NOT {is_raise} OR installed_end IS NULL OR installed_end < months_end THEN
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I', target, {check});
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (%I < %L) NOT VALID', target, {check}, {column},
      to_char(months_end, 'YYYY-MM-DD HH24:MI:SS+00'));
  END IF;
  PERFORM set_config('TimeZone', zone, true);
END
$$
