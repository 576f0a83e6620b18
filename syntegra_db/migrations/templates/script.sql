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

{guard}

{statements}

{protection}{require_own_objects}

COMMIT;

\echo {result}
