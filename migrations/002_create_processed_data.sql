-- Revision 002. Create processed_data, the normalised records of clients.
--
-- Generated from alembic/versions/002_create_processed_data.py by `make generate`: change the revision, not this file.
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
  IF stamp >= '002' THEN
    RAISE EXCEPTION 'revision 002 is already applied: the database is at revision %', stamp;
  ELSIF stamp IS DISTINCT FROM '001' THEN
    RAISE EXCEPTION 'revision 002 upgrades from revision 001, but the database is at %',
      coalesce('revision ' || stamp, 'no revision')
      USING HINT = 'Run the files of migrations/ in ascending order of their numbers.';
  END IF;
END
$$;

CREATE TABLE processed_data (
    id BIGSERIAL NOT NULL,
    client_id BIGINT NOT NULL,
    source_id BIGINT,
    source_type VARCHAR(50) NOT NULL,
    data JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_processed_data PRIMARY KEY (id),
    CONSTRAINT fk_processed_data_source FOREIGN KEY(client_id, source_id) REFERENCES data_sources (client_id, id) ON DELETE SET NULL (source_id)
);

COMMENT ON TABLE processed_data IS 'Normalised records of clients';

COMMENT ON COLUMN processed_data.id IS 'Primary key, from a sequence owned by this column';

COMMENT ON COLUMN processed_data.client_id IS 'Client that owns the row; the clients table belongs to the application';

COMMENT ON COLUMN processed_data.source_id IS 'Data source of the row, owned by the same client; NULL if none or deleted';

COMMENT ON COLUMN processed_data.source_type IS 'Business type, such as restaurant, retail or service (open set)';

COMMENT ON COLUMN processed_data.data IS 'Normalised record';

COMMENT ON COLUMN processed_data.created_at IS 'Time when the row was inserted';

CREATE INDEX idx_processed_data_client_id ON processed_data (client_id);

CREATE INDEX idx_processed_data_source_id ON processed_data (source_id);

CREATE INDEX idx_processed_data_source_type ON processed_data (source_type);

CREATE INDEX idx_processed_data_created_at ON processed_data (created_at);

UPDATE alembic_version SET version_num='002' WHERE alembic_version.version_num = '001';

COMMIT;

\echo Revision 002 applied.
