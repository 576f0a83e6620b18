-- Integer ids, text in place of ENUM types, unconstrained numeric scores: as written by hand from the document.
CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE data_sources (
  id SERIAL PRIMARY KEY,
  client_id INTEGER NOT NULL,
  name VARCHAR(100) NOT NULL,
  type VARCHAR(50) NOT NULL,
  config_json JSON NOT NULL DEFAULT '{}',
  status VARCHAR(20) DEFAULT 'idle',
  last_run_at TIMESTAMPTZ,
  created_at TIMESTAMPTZ DEFAULT CURRENT_TIMESTAMP,
  updated_at TIMESTAMPTZ DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX idx_data_sources_client_id ON data_sources (client_id);

CREATE TABLE processed_data (
  id SERIAL PRIMARY KEY,
  client_id INTEGER NOT NULL,
  source_id INTEGER REFERENCES data_sources (id) ON DELETE CASCADE,
  source_type VARCHAR(50) NOT NULL,
  data JSONB NOT NULL,
  created_at TIMESTAMPTZ DEFAULT now()
);

CREATE TABLE kpi_summary (
  id SERIAL PRIMARY KEY,
  client_id INTEGER NOT NULL,
  source_id INTEGER REFERENCES data_sources (id),
  kpi_name VARCHAR(255) NOT NULL,
  kpi_value DOUBLE PRECISION NOT NULL,
  period_start TIMESTAMPTZ NOT NULL,
  period_end TIMESTAMPTZ NOT NULL,
  calculated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  metadata JSON
);
CREATE INDEX idx_kpi_summary_client_kpi_period ON kpi_summary (client_id, kpi_name, period_start);

CREATE TABLE text_summary (
  id SERIAL PRIMARY KEY,
  client_id INTEGER NOT NULL,
  source_id INTEGER REFERENCES data_sources (id),
  text_field TEXT NOT NULL,
  sentiment VARCHAR(20),
  sentiment_score NUMERIC(5, 4),
  keywords TEXT[],
  embedding VECTOR(384),
  language VARCHAR(5) DEFAULT 'es',
  created_at TIMESTAMPTZ DEFAULT now()
);
CREATE INDEX idx_text_summary_embedding ON text_summary USING ivfflat (embedding vector_cosine_ops);

CREATE TABLE trend_signals (
  id SERIAL PRIMARY KEY,
  sector VARCHAR(100) NOT NULL,
  term VARCHAR(255) NOT NULL,
  period_start TIMESTAMPTZ NOT NULL,
  period_end TIMESTAMPTZ NOT NULL CHECK (period_end > period_start),
  frequency BIGINT NOT NULL DEFAULT 0,
  delta_pct NUMERIC(8, 2),
  status VARCHAR(20) NOT NULL CHECK (status IN ('emergent', 'stable', 'declining')),
  metadata TEXT,
  created_at TIMESTAMPTZ DEFAULT now()
);

CREATE TABLE clusters (
  id SERIAL PRIMARY KEY,
  client_id INTEGER NOT NULL,
  cluster_id INTEGER NOT NULL,
  cluster_name VARCHAR(255),
  features_json JSONB NOT NULL,
  centroid JSONB,
  distance_to_centroid REAL,
  silhouette_score REAL CONSTRAINT silhouette CHECK (silhouette_score BETWEEN -1 AND 1),
  created_at TIMESTAMPTZ DEFAULT now(),
  updated_at TIMESTAMPTZ DEFAULT now()
);

CREATE TABLE anomaly_log (
  id SERIAL PRIMARY KEY,
  client_id INTEGER NOT NULL,
  source_id INTEGER REFERENCES data_sources (id),
  kpi_name VARCHAR(255) NOT NULL,
  detected_at TIMESTAMPTZ DEFAULT now(),
  value REAL NOT NULL,
  expected_value NUMERIC(12, 2),
  deviation NUMERIC,
  reason TEXT,
  severity VARCHAR(20) NOT NULL DEFAULT 'medium',
  method VARCHAR(50),
  metadata JSONB
);

INSERT INTO data_sources (client_id, name, type, config_json)
  SELECT 1 + n % 3, 'till ' || n, 'simple_csv', '{"path":  "a", "rows": 3}' FROM generate_series(1, 30) AS n;
DELETE FROM data_sources WHERE id > 20;
INSERT INTO processed_data (client_id, source_id, source_type, data)
  SELECT client_id, id, 'retail', jsonb_build_object('total', id * 1.5) FROM data_sources;
INSERT INTO kpi_summary (client_id, source_id, kpi_name, kpi_value, period_start, period_end, metadata)
  SELECT client_id, id, 'sales_mom', id / 3.0, '2024-01-01', '2024-02-01', '{"unit": "EUR"}' FROM data_sources;
INSERT INTO text_summary (client_id, source_id, text_field, sentiment, sentiment_score, keywords, embedding)
  SELECT client_id, id, 'muy bueno ' || id, 'positive', 0.8512, ARRAY['bueno', 'rápido'],
         (SELECT array_agg(sin(id * n))::vector(384) FROM generate_series(1, 384) AS n)
  FROM data_sources;
INSERT INTO trend_signals (sector, term, period_start, period_end, frequency, delta_pct, status, metadata)
  SELECT 'retail', 'oferta ' || n, '2024-01-01', '2024-02-01', n, n * 1.25, 'stable', '{"seen": true}'
  FROM generate_series(1, 15) AS n;
INSERT INTO clusters (client_id, cluster_id, features_json, distance_to_centroid, silhouette_score)
  SELECT n, n % 4, '{"visits": 3}', n * 0.1, 0.35 FROM generate_series(1, 25) AS n;
INSERT INTO anomaly_log (client_id, source_id, kpi_name, value, expected_value, deviation, severity)
  SELECT client_id, id, 'avg_ticket', id * 0.7, 12.5, 2.345, 'high' FROM data_sources;
