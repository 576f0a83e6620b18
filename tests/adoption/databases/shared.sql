-- A database shared with an application: its tables, foreign keys in both directions, its columns and indexes.
CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE users (id SERIAL PRIMARY KEY, email TEXT NOT NULL UNIQUE);
CREATE TABLE clients (id SERIAL PRIMARY KEY, name TEXT NOT NULL, owner_id INTEGER REFERENCES users (id));

CREATE TABLE data_sources (
  id SERIAL PRIMARY KEY,
  client_id INTEGER NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
  created_by INTEGER NOT NULL REFERENCES users (id),
  name VARCHAR(255) NOT NULL,
  type VARCHAR(50) NOT NULL,
  config_json JSONB NOT NULL DEFAULT '{}',
  status VARCHAR(50) NOT NULL DEFAULT 'idle',
  last_run_at TIMESTAMPTZ,
  created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX data_sources_by_name ON data_sources (lower(name));

CREATE TABLE processed_data (
  id BIGSERIAL PRIMARY KEY,
  client_id INTEGER NOT NULL CONSTRAINT processed_client REFERENCES clients (id),
  source_id INTEGER CONSTRAINT processed_source REFERENCES data_sources (id) ON DELETE RESTRICT,
  source_type VARCHAR(50) NOT NULL,
  data JSONB NOT NULL,
  priority SMALLINT DEFAULT 1 CONSTRAINT priority_range CHECK (priority BETWEEN 1 AND 5),
  created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE kpi_summary (
  id SERIAL PRIMARY KEY,
  client_id INTEGER NOT NULL REFERENCES clients (id),
  source_id INTEGER,
  kpi_name VARCHAR(255) NOT NULL,
  kpi_value NUMERIC NOT NULL,
  period_start TIMESTAMPTZ NOT NULL,
  period_end TIMESTAMPTZ NOT NULL,
  calculated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  metadata JSONB
);
CREATE TABLE text_summary (
  id SERIAL PRIMARY KEY,
  client_id INTEGER NOT NULL REFERENCES clients (id),
  source_id INTEGER,
  text_field TEXT NOT NULL,
  sentiment VARCHAR(50),
  sentiment_score DOUBLE PRECISION,
  keywords JSONB,
  embedding VECTOR(384),
  language VARCHAR(10) NOT NULL DEFAULT 'es',
  created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX text_summary_nearest ON text_summary USING hnsw (embedding vector_cosine_ops);
CREATE TABLE trend_signals (
  id SERIAL PRIMARY KEY,
  sector VARCHAR(255) NOT NULL,
  term VARCHAR(255) NOT NULL,
  period_start TIMESTAMPTZ NOT NULL,
  period_end TIMESTAMPTZ NOT NULL,
  frequency INTEGER NOT NULL DEFAULT 0,
  delta_pct DOUBLE PRECISION,
  status VARCHAR(20) NOT NULL DEFAULT 'stable',
  metadata JSONB,
  created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE TABLE clusters (
  id SERIAL PRIMARY KEY,
  client_id INTEGER NOT NULL,
  cluster_id INTEGER NOT NULL,
  cluster_name VARCHAR(255),
  features_json JSONB NOT NULL,
  centroid JSONB,
  distance_to_centroid DOUBLE PRECISION,
  silhouette_score DOUBLE PRECISION,
  created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE TABLE anomaly_log (
  id SERIAL PRIMARY KEY,
  client_id INTEGER NOT NULL REFERENCES clients (id),
  source_id INTEGER,
  kpi_name VARCHAR(255) NOT NULL,
  detected_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  value NUMERIC NOT NULL,
  expected_value NUMERIC,
  deviation DOUBLE PRECISION,
  reason TEXT,
  severity VARCHAR(20) NOT NULL DEFAULT 'medium',
  method VARCHAR(100),
  metadata JSONB
);
CREATE TABLE alerts (
  id SERIAL PRIMARY KEY,
  anomaly_id INTEGER NOT NULL REFERENCES anomaly_log (id) ON DELETE CASCADE,
  user_id INTEGER NOT NULL REFERENCES users (id)
);
CREATE VIEW busy_clients AS SELECT name FROM clients;

INSERT INTO users (email) VALUES ('ana@example.com'), ('leo@example.com');
INSERT INTO clients (name, owner_id) SELECT 'client ' || n, 1 + n % 2 FROM generate_series(1, 4) AS n;
INSERT INTO data_sources (client_id, created_by, name, type) SELECT n, 1, 'till', 'simple_csv' FROM generate_series(1, 4) AS n;
INSERT INTO processed_data (client_id, source_id, source_type, data)
  SELECT 1 + n % 4, 1 + n % 4, 'retail', jsonb_build_object('n', n) FROM generate_series(1, 40) AS n;
INSERT INTO kpi_summary (client_id, source_id, kpi_name, kpi_value, period_start, period_end)
  SELECT 1 + n % 4, 1 + n % 4, 'sales', n, '2024-01-01', '2024-02-01' FROM generate_series(1, 12) AS n;
INSERT INTO text_summary (client_id, text_field, embedding)
  SELECT 1 + n % 4, 'texto', (SELECT array_agg(cos(n * i))::vector(384) FROM generate_series(1, 384) AS i)
  FROM generate_series(1, 12) AS n;
INSERT INTO trend_signals (sector, term, period_start, period_end) VALUES ('retail', 'oferta', '2024-01-01', '2024-02-01');
INSERT INTO clusters (client_id, cluster_id, features_json) SELECT n, n, '{}' FROM generate_series(1, 4) AS n;
INSERT INTO anomaly_log (client_id, kpi_name, value) SELECT 1 + n % 4, 'sales', n FROM generate_series(1, 8) AS n;
INSERT INTO alerts (anomaly_id, user_id) SELECT n, 1 + n % 2 FROM generate_series(1, 8) AS n;
