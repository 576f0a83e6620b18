-- Revisions 001 and 002 only, without pgvector and client_id; both tables share one id sequence.
CREATE SEQUENCE everything_id_seq;

CREATE TABLE data_sources (
  id INTEGER PRIMARY KEY DEFAULT nextval('everything_id_seq'),
  client_id INTEGER,
  name VARCHAR(255) NOT NULL,
  type VARCHAR(50) NOT NULL,
  config_json TEXT,
  status VARCHAR(50) DEFAULT 'idle',
  last_run_at TIMESTAMPTZ
);

CREATE TABLE processed_data (
  id INTEGER DEFAULT nextval('everything_id_seq') UNIQUE,
  source_id INTEGER,
  source_type VARCHAR(50),
  data JSON NOT NULL,
  created_at TIMESTAMPTZ
);
ALTER TABLE processed_data DROP CONSTRAINT processed_data_id_key;

INSERT INTO data_sources (client_id, name, type, config_json)
  SELECT n % 3 + 1, 'till ' || n, 'simple_csv', '{"sep": ";"}' FROM generate_series(1, 9) AS n;
UPDATE data_sources SET client_id = NULL WHERE id = 5;
INSERT INTO processed_data (source_id, source_type, data, created_at)
  SELECT id, CASE WHEN id % 2 = 0 THEN 'retail' END, '{"total": 9.90}', '2024-01-15' FROM data_sources;
