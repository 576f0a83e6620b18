-- An application that gives fewer values than the models: no client_id, NULL timestamps, arrays in place of JSON.
CREATE TABLE data_sources (
  id serial PRIMARY KEY,
  client_id integer NOT NULL,
  name text NOT NULL,
  type varchar(50) NOT NULL,
  config_json json,
  status text DEFAULT 'pending',
  created_at timestamp NOT NULL DEFAULT now(),
  updated_at timestamp
);

CREATE TABLE processed_data (
  id serial PRIMARY KEY,
  source_id integer REFERENCES data_sources,
  source_type varchar(50) NOT NULL DEFAULT 'retail',
  data jsonb NOT NULL,
  created_at timestamptz DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE clusters (
  id serial PRIMARY KEY,
  client_id integer NOT NULL,
  cluster_id integer NOT NULL,
  features_used text[] NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz
);

CREATE TABLE text_summary (
  id serial PRIMARY KEY,
  client_id integer NOT NULL,
  text_field text NOT NULL,
  keywords text[],
  sentiment_score numeric,
  created_at timestamptz DEFAULT now()
);

CREATE TABLE anomaly_log (
  id serial PRIMARY KEY,
  client_id integer NOT NULL,
  kpi_name text NOT NULL,
  detected_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  value double precision NOT NULL,
  severity text
);

INSERT INTO data_sources (client_id, name, type)
  SELECT n, 'till', 'csv' FROM generate_series(1, 3) n;
INSERT INTO processed_data (source_id, data)
  SELECT id, '{}' FROM data_sources;
INSERT INTO clusters (client_id, cluster_id, features_used)
  SELECT n, 1, ARRAY['visits', 'spend'] FROM generate_series(1, 3) n;
INSERT INTO text_summary (client_id, text_field, keywords, sentiment_score)
  SELECT n, 'bueno', ARRAY['a'], n / 7.0 FROM generate_series(1, 45) n;
INSERT INTO anomaly_log (client_id, kpi_name, value)
  SELECT n, 'avg_ticket', n FROM generate_series(1, 3) n;
