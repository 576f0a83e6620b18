DO $$
DECLARE
  target regclass := to_regclass(format('%I.%I', current_schema(), {table}));
  reasons text;
  moves text;
BEGIN
{require_table}
  IF (SELECT relkind = 'p' FROM pg_class WHERE oid = target) THEN
    RETURN;
  END IF;
{checks}
END
$$
