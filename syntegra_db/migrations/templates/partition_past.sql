DO $$
DECLARE
  schema text := current_schema();
  target regclass := to_regclass(format('%I.%I', schema, {table}));
BEGIN
  IF (SELECT relkind = 'p' FROM pg_class WHERE oid = target)
     AND to_regclass(format('%I.%I', schema, {past})) IS NULL THEN
    EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING ALL EXCLUDING INDEXES)', schema, {past}, target);
  END IF;
END
$$
