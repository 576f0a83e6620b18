-- Revisions 001 and 002 as declared, and the part of 003 that an interrupted script with IF NOT EXISTS created.
CREATE TABLE IF NOT EXISTS data_sources (
  id BIGSERIAL PRIMARY KEY,
  client_id BIGINT NOT NULL,
  name VARCHAR(255) NOT NULL,
  type VARCHAR(50) NOT NULL,
  config_json JSONB NOT NULL DEFAULT '{}',
  status VARCHAR(50) NOT NULL DEFAULT 'idle',
  last_run_at TIMESTAMPTZ,
  created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  CONSTRAINT uq_data_sources_client_id_id UNIQUE (client_id, id)
);
CREATE TABLE IF NOT EXISTS processed_data (
  id BIGSERIAL PRIMARY KEY,
  client_id BIGINT NOT NULL,
  source_id BIGINT,
  source_type VARCHAR(50) NOT NULL,
  data JSONB NOT NULL,
  created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  CONSTRAINT fk_processed_data_source FOREIGN KEY (client_id, source_id)
    REFERENCES data_sources (client_id, id) ON DELETE SET NULL (source_id) NOT VALID
);
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY);
INSERT INTO alembic_version VALUES ('002');

CREATE TYPE trend_status AS ENUM ('emergent', 'stable', 'declining');
CREATE TABLE IF NOT EXISTS kpi_summary (
  id BIGSERIAL PRIMARY KEY,
  client_id BIGINT NOT NULL,
  source_id BIGINT,
  kpi_name VARCHAR(255) NOT NULL,
  kpi_value NUMERIC NOT NULL,
  period_start TIMESTAMPTZ NOT NULL,
  period_end TIMESTAMPTZ NOT NULL,
  calculated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  metadata JSONB
);
CREATE INDEX IF NOT EXISTS idx_kpi_summary_client_id ON kpi_summary (client_id);
CREATE TABLE IF NOT EXISTS trend_signals (
  id BIGSERIAL PRIMARY KEY,
  sector VARCHAR(255) NOT NULL,
  term VARCHAR(255) NOT NULL,
  period_start TIMESTAMPTZ NOT NULL,
  period_end TIMESTAMPTZ NOT NULL,
  status trend_status NOT NULL DEFAULT 'stable'
);

INSERT INTO data_sources (client_id, name, type) SELECT n, 'till', 'simple_csv' FROM generate_series(1, 3) AS n;
INSERT INTO processed_data (client_id, source_id, source_type, data) SELECT n, n, 'retail', '{}' FROM generate_series(1, 3) AS n;
INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end)
  VALUES (1, 'sales', 1, '2024-01-01', '2024-02-01');
INSERT INTO trend_signals (sector, term, period_start, period_end)
  VALUES ('retail', 'oferta', '2024-01-01', '2024-02-01');
-- By hand, past the sequence.
INSERT INTO kpi_summary (id, client_id, kpi_name, kpi_value, period_start, period_end)
  VALUES (50, 1, 'sales', 2, '2024-01-01', '2024-02-01');
