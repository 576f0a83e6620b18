-- Revision 001. Create data_sources, the connectors to the external data of clients.
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
  IF stamp >= '001' THEN
    RAISE EXCEPTION 'revision 001 is already applied: the database is at revision %', stamp;
  ELSIF stamp IS DISTINCT FROM NULL THEN
    RAISE EXCEPTION 'revision 001 upgrades from no revision, but the database is at %',
      coalesce('revision ' || stamp, 'no revision')
      USING HINT = 'Run the files of migrations/ in ascending order of their numbers.';
  END IF;
END
$$;

CREATE TABLE IF NOT EXISTS alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE data_sources (
    id BIGSERIAL NOT NULL,
    client_id BIGINT NOT NULL,
    name VARCHAR(255) NOT NULL,
    type VARCHAR(50) NOT NULL,
    config_json JSONB DEFAULT '{}' NOT NULL,
    status VARCHAR(50) DEFAULT 'idle' NOT NULL,
    last_run_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_data_sources PRIMARY KEY (id),
    CONSTRAINT uq_data_sources_client_id_id UNIQUE (client_id, id)
);

COMMENT ON TABLE data_sources IS 'Connectors to the external data of clients';

COMMENT ON COLUMN data_sources.id IS 'Primary key, from a sequence owned by this column';

COMMENT ON COLUMN data_sources.client_id IS 'Client that owns the row; the clients table belongs to the application';

COMMENT ON COLUMN data_sources.name IS 'Connector name, chosen by the client';

COMMENT ON COLUMN data_sources.type IS 'Connector type, such as simple_csv or api_rest (open set)';

COMMENT ON COLUMN data_sources.config_json IS 'Connector settings; may contain credentials, so never display or log them';

COMMENT ON COLUMN data_sources.status IS 'Connector status, such as idle, processing or error (open set)';

COMMENT ON COLUMN data_sources.last_run_at IS 'Time of the last run; NULL before the first run';

COMMENT ON COLUMN data_sources.created_at IS 'Time when the row was inserted';

COMMENT ON COLUMN data_sources.updated_at IS 'Time when the row was last updated';

CREATE INDEX idx_data_sources_client_id ON data_sources (client_id);

CREATE INDEX idx_data_sources_status ON data_sources (status);

INSERT INTO alembic_version (version_num) VALUES ('001');

COMMIT;

\echo Revision 001 applied.
