-- {title}
--
-- Generated from alembic/versions/{source} by `make generate`: change the revision, not this file.
-- Run it with psql; it needs no options. It applies completely or not at all: on an error, psql exits with status 3.

\set ON_ERROR_STOP on
\set QUIET on

BEGIN;

-- A session that waits for a lock blocks all later writers. After a lock timeout, run the file again.
SET LOCAL lock_timeout = '{lock_timeout:.0f}ms';
-- Nor does a stopped psql keep its locks.
SET LOCAL idle_in_transaction_session_timeout = '{idle_timeout}s';

DO $$
DECLARE
  stamp text;
BEGIN
  IF NOT pg_try_advisory_xact_lock(('x' || left(encode(sha256(convert_to(
       'syntegra_db:' || current_schema() || '.{version_table}', 'UTF8')), 'hex'), 16))::bit(64)::bigint) THEN
    RAISE EXCEPTION 'another migration is running; wait until it ends, then run this file again';
  END IF;
  IF to_regclass(quote_ident(current_schema()) || '.{version_table}') IS NOT NULL THEN
    SELECT string_agg(version_num, ' and ' ORDER BY version_num) INTO stamp FROM {version_table};
  END IF;
{guard}
END
$$;

{statements}

COMMIT;

\echo {result}
