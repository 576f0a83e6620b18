DO $$
DECLARE
  schema text := current_schema();
  target regclass := to_regclass(format('%I.%I', schema, {table}));
  obstacle text;
BEGIN
{require_table}
  IF (SELECT relkind <> 'p' FROM pg_class WHERE oid = target) THEN
    RETURN;
  END IF;
{require_past}
  IF to_regclass(format('%I.%I', schema, {past})) IS NULL THEN
    EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING ALL EXCLUDING INDEXES)', schema, {past}, target);
    EXECUTE format('COMMENT ON TABLE %I.%I IS %L', schema, {past}, {empty_past});
  END IF;
END
$$
