-- {title}
--
-- Generated from alembic/versions/{source} by `make generate`: change the revision, not this file.
-- Run it with psql; it needs no options. It commits step after step, because services use the tables: on an error, psql
-- exits with status 3. Run the file again: it continues with the step that is not finished.
-- With \i, psql does not exit: no other session can migrate until the file is run again there, or psql ends.

\set ON_ERROR_STOP on
\set QUIET on
\set AUTOCOMMIT on

-- After an error, a session that includes the file with \i is still in the transaction, with the lock and the settings.
\if :{{?syntegra_db_is_begun}}
ROLLBACK;
\endif
\if :{{?syntegra_db_lock}}
SELECT pg_catalog.pg_advisory_unlock(:'syntegra_db_lock'::pg_catalog.int8) AS syntegra_db_unlocked \gset
\unset syntegra_db_lock
\endif

-- They are restored at the end.
\if :{{?syntegra_db_has_settings}}
\else
SELECT pg_catalog.current_setting('search_path') AS syntegra_db_path,
  pg_catalog.current_setting('client_min_messages') AS syntegra_db_messages,
  pg_catalog.current_setting('lock_timeout') AS syntegra_db_lock_timeout,
  pg_catalog.current_setting('idle_in_transaction_session_timeout') AS syntegra_db_idle_timeout \gset
\endif

\set syntegra_db_is_begun true
BEGIN;

-- A session that waits for a lock blocks all later writers. After a lock timeout, run the file again.
SET lock_timeout = '{lock_timeout:.0f}ms';
-- Nor does a stopped psql keep its locks.
SET idle_in_transaction_session_timeout = '{idle_timeout}s';
SET client_min_messages = 'warning';

{guard}

-- The record of the finished steps.
DO $$
DECLARE
  descriptions text[] := ARRAY[
    {descriptions}
  ];
  is_begun boolean := false;
BEGIN
  IF to_regclass(format('%I.{step_table}', current_schema())) IS NULL THEN
    {create_step_table};
    GRANT SELECT ON {step_table} TO PUBLIC;
  ELSE
    -- The owner of {version_table} could add a trigger to it between two steps.
    IF NOT EXISTS (
      SELECT FROM pg_class JOIN pg_roles ON pg_roles.oid = relowner
      WHERE pg_class.oid = to_regclass(format('%I.{step_table}', current_schema()))
        AND (rolsuper OR rolname = current_user)
    ) THEN
      ALTER TABLE {step_table} OWNER TO CURRENT_USER;
    END IF;
    is_begun := EXISTS (SELECT FROM {step_table});
  END IF;
  IF NOT EXISTS (SELECT FROM {step_table} WHERE direction = '{direction}') THEN
    DELETE FROM {step_table};
    INSERT INTO {step_table} (step, revision, direction, is_repeated, description, is_finished)
    SELECT step, '{revision}', '{direction}', is_begun, description, false
    FROM unnest(descriptions) WITH ORDINALITY AS steps (description, step);
  ELSIF ARRAY(SELECT description FROM {step_table} ORDER BY step) <> descriptions THEN
    RAISE EXCEPTION 'revision {revision} was begun with other steps than those of this file'
      USING HINT = 'Run the file that began it.';
  END IF;
END
$$;

-- The guard's lock ends with the transaction.
SELECT key AS syntegra_db_lock, pg_advisory_lock(key) AS syntegra_db_locked
FROM (SELECT {lock_key}) AS locks (key) \gset
\set syntegra_db_has_settings true
COMMIT;

-- What each transaction runs before its end.
SELECT $protection$
{protection}$protection$ AS syntegra_db_protection \gset

{steps}

BEGIN;
{stamp}
DROP TABLE {step_table};
{protect}
{require_own_objects}
COMMIT;

SELECT pg_advisory_unlock(:'syntegra_db_lock'::int8) AS syntegra_db_unlocked,
  set_config('client_min_messages', :'syntegra_db_messages', false) AS syntegra_db_messages,
  set_config('lock_timeout', :'syntegra_db_lock_timeout', false) AS syntegra_db_lock_timeout,
  set_config('idle_in_transaction_session_timeout', :'syntegra_db_idle_timeout', false)
    AS syntegra_db_idle_timeout,
  set_config('search_path', :'syntegra_db_path', false) AS syntegra_db_path,
  set_config('syntegra_db.other_objects', '', false) AS syntegra_db_other_objects \gset
\unset syntegra_db_is_begun
\unset syntegra_db_lock
\unset syntegra_db_has_settings
\unset syntegra_db_protection

\echo {result}
