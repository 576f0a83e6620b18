-- Revert revision 001 and delete all rows of its tables. Its upgrade: Create data_sources, the connectors to the external data of clients.
--
-- Generated from alembic/versions/001_create_data_sources.py by `make generate`: change the revision, not this file.
-- Run it with psql; it needs no options. It applies completely or not at all: on an error, psql exits with status 3.

\set ON_ERROR_STOP on
\set QUIET on

BEGIN;

-- A session that waits for a lock blocks all later writers. After a lock timeout, run the file again.
SET LOCAL lock_timeout = '500ms';
-- Nor does a stopped psql keep its locks.
SET LOCAL idle_in_transaction_session_timeout = '5s';

DO $$
DECLARE
  stamp text;
BEGIN
  IF NOT pg_try_advisory_xact_lock(('x' || left(encode(sha256(convert_to(
       'syntegra_db:' || current_schema() || '.alembic_version', 'UTF8')), 'hex'), 16))::bit(64)::bigint) THEN
    RAISE EXCEPTION 'another migration is running; wait until it ends, then run this file again';
  END IF;
  IF to_regclass(quote_ident(current_schema()) || '.alembic_version') IS NOT NULL THEN
    SELECT string_agg(version_num, ' and ' ORDER BY version_num) INTO stamp FROM alembic_version;
  END IF;
  IF stamp IS DISTINCT FROM '001' THEN
    RAISE EXCEPTION 'this file reverts revision 001, but the database is at %',
      coalesce('revision ' || stamp, 'no revision')
      USING HINT = 'Revert the revisions one by one, the newest first.';
  END IF;
END
$$;

DROP TABLE data_sources;

DELETE FROM alembic_version WHERE alembic_version.version_num = '001';

COMMIT;

\echo Revision 001 reverted.
