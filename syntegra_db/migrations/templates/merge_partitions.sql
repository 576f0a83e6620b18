DO $$
DECLARE
  schema text := current_schema();
  target regclass := to_regclass(format('%I.%I', schema, {table}));
  source regclass := target;
  destination regclass := to_regclass(format('%I.%I', schema, {past}));
  reasons text;
  obstacle text;
  owner text;
  primary_key text;
  column_list text;
  item record;
  statements text[];
  statement text;
BEGIN
{require_table}
  IF (SELECT relkind <> 'p' FROM pg_class WHERE oid = source) THEN
    RETURN;
  END IF;
  IF destination IS NULL THEN
    RAISE EXCEPTION 'table % was dropped or renamed after the partitions of table % began to be merged',
      quote_ident({past}), target USING HINT = 'Undo what was begun, and run this again.';
  END IF;
  EXECUTE format('LOCK TABLE %s, %s IN ACCESS EXCLUSIVE MODE', source, destination);
{require_past}
  -- They would be dropped with the partitioned table, and so would rows that a query does not return.
  SELECT string_agg(reason, '; ' ORDER BY reason) INTO reasons FROM (
{own_parts}
    UNION
    SELECT format('a DETACH is not finished: ALTER TABLE %s DETACH PARTITION %s FINALIZE;', target, inhrelid::regclass)
    FROM pg_inherits WHERE inhparent = target AND inhdetachpending
  ) AS found (reason);
  IF reasons IS NOT NULL THEN
    RAISE EXCEPTION 'the partitions of table % cannot be merged: %', target, reasons
      USING HINT = 'Drop these objects, run this again, and create them again on the table.';
  END IF;
  SELECT conname INTO primary_key FROM pg_constraint WHERE conrelid = source AND contype = 'p';
  SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO column_list FROM pg_attribute
  WHERE attrelid = source AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
  -- What the first partition has gets the name again; the rest is created.
  statements := ARRAY(
    SELECT format('ALTER INDEX %I.%I RENAME TO %I', schema, part.relname, pg_class.relname)
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_inherits ON inhparent = indexrelid
      JOIN pg_index AS part_index ON part_index.indexrelid = inhrelid AND part_index.indrelid = destination
      JOIN pg_class AS part ON part.oid = inhrelid
    WHERE pg_index.indrelid = source AND NOT pg_index.indisprimary
  ) || ARRAY(
    SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', source, conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE conrelid = source AND contype IN ('u', 'f')
      AND NOT EXISTS (SELECT FROM pg_constraint AS part WHERE part.conrelid = destination
                      AND part.conparentid = pg_constraint.oid)
    ORDER BY contype DESC, conname
  ) || ARRAY(
    SELECT replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON ') FROM pg_index
    WHERE indrelid = source AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND conrelid = source)
      AND NOT EXISTS (SELECT FROM pg_inherits JOIN pg_index AS part ON part.indexrelid = inhrelid
                      WHERE inhparent = pg_index.indexrelid AND part.indrelid = destination)
  );
  IF EXISTS (SELECT FROM pg_inherits WHERE inhparent = source AND inhrelid = destination) THEN
    EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', source, destination);
  END IF;
  EXECUTE format('INSERT INTO %s (%s) SELECT %2$s FROM %s', destination, column_list, source);
{copy_privileges}
  EXECUTE format('DROP TABLE %s', source);
  EXECUTE format('ALTER TABLE %s RENAME TO %I', destination, {table});
  EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I, ADD CONSTRAINT %I PRIMARY KEY USING INDEX %I',
    destination, {partition_key}, primary_key, {past_key});
  FOREACH statement IN ARRAY statements LOOP
    EXECUTE statement;
  END LOOP;
END
$$
