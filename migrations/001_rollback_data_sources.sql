-- Takes back revision 001 and loses the rows of its tables. Create data_sources, the connectors to the external data of clients.
--
-- Made from alembic/versions/001_create_data_sources.py by `make sql`: change the revision, not this file.
-- For psql, without any flag; it applies whole or not at all, and psql then exits with status 3.

\set ON_ERROR_STOP on
\set QUIET on

BEGIN;

-- A wait for a lock would stall every writer that comes after; after a lock timeout, run the file again.
SET LOCAL lock_timeout = '500ms';

DO $$
DECLARE
  stamp text;
BEGIN
  IF NOT pg_try_advisory_xact_lock(('x' || left(encode(sha256(convert_to(
       'syntegra_db:' || current_schema() || '.alembic_version', 'UTF8')), 'hex'), 16))::bit(64)::bigint) THEN
    RAISE EXCEPTION 'another migration is running; wait for it to end, then run this file again';
  END IF;
  IF to_regclass(quote_ident(current_schema()) || '.alembic_version') IS NOT NULL THEN
    SELECT string_agg(version_num, ' and ' ORDER BY version_num) INTO stamp FROM alembic_version;
  END IF;
  IF stamp IS DISTINCT FROM '001' THEN
    RAISE EXCEPTION 'this takes back revision 001, but the database is at %',
      coalesce('revision ' || stamp, 'no revision')
      USING HINT = 'Take revisions back one by one, the newest first.';
  END IF;
END
$$;

DROP TABLE data_sources;

DELETE FROM alembic_version WHERE alembic_version.version_num = '001';

COMMIT;

\echo Revision 001 taken back.
