DO $batches$
#variable_conflict use_column
DECLARE
  batch_begin bigint;
  batch_end bigint;
  batch_rows bigint := {first_batch_rows};
  batch_changes bigint;
  batch_started timestamptz;
  batch_attempts integer := 0;
BEGIN
  UPDATE {step_table} SET (first_id, final_id, last_id, changed_rows) = (
    SELECT coalesce(min(id), 1), coalesce(max(id), 0), coalesce(min(id), 1) - 1, 0 FROM {table}
  ) WHERE step = {number} AND last_id IS NULL;
  COMMIT;
  LOOP
    batch_started := clock_timestamp();
    SELECT last_id INTO batch_begin FROM {step_table} WHERE step = {number};
    SELECT max(id) INTO batch_end FROM (
      SELECT id FROM {table} WHERE id > batch_begin ORDER BY id LIMIT batch_rows
    ) AS batch;
    EXIT WHEN batch_end IS NULL;
    BEGIN
      {update} WHERE id > batch_begin AND id <= batch_end AND ({condition});
      GET DIAGNOSTICS batch_changes = ROW_COUNT;
{own_objects}
      UPDATE {step_table} SET last_id = batch_end, changed_rows = changed_rows + batch_changes WHERE step = {number};
      batch_attempts := 0;
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
      batch_attempts := batch_attempts + 1;
      IF batch_attempts >= {max_attempts} THEN
        RAISE;
      END IF;
    END;
    COMMIT;
    IF batch_attempts > 0 THEN
      PERFORM pg_sleep(0.5);
    ELSE
      batch_rows := least({max_batch_rows}, greatest({min_batch_rows}, batch_rows * {batch_seconds}
        / greatest(extract(epoch FROM clock_timestamp() - batch_started), {batch_seconds} / 2.0)));
    END IF;
  END LOOP;
  UPDATE {step_table} SET is_finished = true WHERE step = {number};
END
$batches$;