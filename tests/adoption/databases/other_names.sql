-- The declared types; constraints, indexes and sequences under other names, some missing, one with a duplicate.
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TYPE trend_status AS ENUM ('emergent', 'stable', 'declining');
CREATE TYPE anomaly_severity AS ENUM ('low', 'medium', 'high', 'critical');

CREATE SEQUENCE seq_sources;
CREATE TABLE data_sources (
  id BIGINT NOT NULL DEFAULT nextval('seq_sources') CONSTRAINT sources_key PRIMARY KEY,
  client_id BIGINT NOT NULL,
  name VARCHAR(255) NOT NULL,
  type VARCHAR(50) NOT NULL,
  config_json JSONB NOT NULL DEFAULT '{}',
  status VARCHAR(50) NOT NULL DEFAULT 'idle',
  last_run_at TIMESTAMPTZ,
  created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX sources_of_client ON data_sources (client_id, id);
CREATE INDEX sources_client ON data_sources (client_id);

CREATE TABLE processed_data (
  id BIGSERIAL CONSTRAINT processed_key PRIMARY KEY,
  client_id BIGINT NOT NULL,
  source_id BIGINT,
  source_type VARCHAR(50) NOT NULL,
  data JSONB NOT NULL,
  created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  CONSTRAINT processed_source FOREIGN KEY (client_id, source_id)
    REFERENCES data_sources (client_id, id) ON DELETE SET NULL (source_id)
);
CREATE INDEX processed_client ON processed_data (client_id);
CREATE INDEX idx_processed_data_source_type ON processed_data (source_type, created_at);
CREATE INDEX processed_recent ON processed_data (created_at DESC) WHERE source_id IS NOT NULL;

CREATE TABLE kpi_summary (
  id BIGSERIAL PRIMARY KEY,
  client_id BIGINT NOT NULL,
  source_id BIGINT,
  kpi_name VARCHAR(255) NOT NULL,
  kpi_value NUMERIC NOT NULL CONSTRAINT kpi_is_a_number CHECK (kpi_value <> 'NaN'),
  period_start TIMESTAMPTZ NOT NULL,
  period_end TIMESTAMPTZ NOT NULL,
  calculated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  metadata JSONB,
  CONSTRAINT sane_period CHECK (period_end >= period_start)
);
CREATE INDEX kpi_lookup ON kpi_summary (client_id, kpi_name, period_start);

CREATE TABLE text_summary (
  id BIGSERIAL PRIMARY KEY,
  client_id BIGINT NOT NULL,
  source_id BIGINT,
  text_field TEXT NOT NULL,
  sentiment VARCHAR(50),
  sentiment_score DOUBLE PRECISION,
  keywords JSONB,
  embedding VECTOR,
  language VARCHAR(10) NOT NULL DEFAULT 'es',
  created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX text_keywords ON text_summary USING gin (keywords);

CREATE UNLOGGED TABLE trend_signals (
  id BIGSERIAL PRIMARY KEY,
  sector VARCHAR(255) NOT NULL,
  term VARCHAR(255) NOT NULL,
  period_start TIMESTAMPTZ NOT NULL,
  period_end TIMESTAMPTZ NOT NULL,
  frequency INTEGER NOT NULL DEFAULT 0,
  delta_pct DOUBLE PRECISION,
  status trend_status NOT NULL DEFAULT 'stable',
  metadata JSONB,
  created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE clusters (
  id BIGSERIAL PRIMARY KEY,
  client_id BIGINT NOT NULL,
  cluster_id INTEGER NOT NULL,
  cluster_name VARCHAR(255),
  features_json JSONB NOT NULL,
  centroid JSONB,
  distance_to_centroid DOUBLE PRECISION,
  silhouette_score DOUBLE PRECISION,
  created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX clusters_features ON clusters USING gin (features_json);

CREATE TABLE anomaly_log (
  id BIGSERIAL PRIMARY KEY,
  client_id BIGINT NOT NULL,
  source_id BIGINT,
  kpi_name VARCHAR(255) NOT NULL,
  detected_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  value NUMERIC NOT NULL,
  expected_value NUMERIC,
  deviation DOUBLE PRECISION,
  reason TEXT,
  severity anomaly_severity NOT NULL DEFAULT 'medium',
  method VARCHAR(100),
  metadata JSONB
);
CREATE INDEX idx_anomaly_log_severity ON anomaly_log USING hash (severity);

INSERT INTO data_sources (client_id, name, type) SELECT n, 'till', 'simple_csv' FROM generate_series(1, 6) AS n;
INSERT INTO processed_data (client_id, source_id, source_type, data) SELECT n, n, 'retail', '{}' FROM generate_series(1, 6) AS n;
INSERT INTO kpi_summary (client_id, source_id, kpi_name, kpi_value, period_start, period_end)
  SELECT n, n, 'sales', n / 3.0, '2024-01-01', '2024-02-01' FROM generate_series(1, 6) AS n;
INSERT INTO text_summary (client_id, text_field, embedding)
  SELECT n, 'texto', (SELECT array_agg(cos(n * i))::vector FROM generate_series(1, 384) AS i) FROM generate_series(1, 6) AS n;
INSERT INTO trend_signals (sector, term, period_start, period_end, frequency)
  SELECT 'retail', 'oferta', '2024-01-01', '2024-02-01', n FROM generate_series(1, 6) AS n;
INSERT INTO clusters (client_id, cluster_id, features_json) SELECT n, n, '{}' FROM generate_series(1, 6) AS n;
INSERT INTO anomaly_log (client_id, kpi_name, value, severity) SELECT n, 'sales', n, 'low' FROM generate_series(1, 6) AS n;
