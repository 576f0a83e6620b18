-- Compares the five analytics tables of the current schema with what revision 003 makes. It only reads.
--
-- For psql, by -f or on standard input. A row is OK, MISSING, DIFFERENT, or EXTRA: there, and none of revision 003's.
-- When anything is missing or different, psql exits with status 3.

\set ON_ERROR_STOP on
\set QUIET on
\set VERBOSITY terse

BEGIN READ ONLY;

-- The version table may be missing, and a query that names it would then fail.
SELECT to_regclass(format('%I.alembic_version', current_schema())) IS NOT NULL AS stamped \gset
\set revision ''
\if :stamped
  SELECT coalesce(string_agg(version_num, ' and ' ORDER BY version_num), '') AS revision FROM alembic_version \gset
\endif

WITH expected_lines (relation, kind, lines) AS (
  VALUES
    ('', 'type', $$
      trend_status emergent, stable, declining
      anomaly_severity low, medium, high, critical
    $$),
    ('kpi_summary', 'column', $$
      id bigint not null default nextval('kpi_summary_id_seq'::regclass)
      client_id bigint not null
      source_id bigint
      kpi_name character varying(255) not null
      kpi_value numeric not null
      period_start timestamp with time zone not null
      period_end timestamp with time zone not null
      calculated_at timestamp with time zone not null default now()
      metadata jsonb
    $$),
    ('kpi_summary', 'index', $$
      idx_kpi_summary_client_kpi_period btree (client_id, kpi_name, period_start)
      idx_kpi_summary_client_id btree (client_id)
      idx_kpi_summary_source_id btree (source_id)
      idx_kpi_summary_kpi_name btree (kpi_name)
      idx_kpi_summary_period_start btree (period_start)
    $$),
    ('kpi_summary', 'constraint', $$
      pk_kpi_summary PRIMARY KEY (id)
      fk_kpi_summary_source FOREIGN KEY (client_id, source_id) REFERENCES data_sources(client_id, id) ON DELETE SET NULL (source_id)
      ck_kpi_summary_kpi_value_finite CHECK (kpi_value > '-Infinity'::numeric AND kpi_value < 'Infinity'::numeric)
      ck_kpi_summary_period_order CHECK (period_end >= period_start)
    $$),
    ('text_summary', 'column', $$
      id bigint not null default nextval('text_summary_id_seq'::regclass)
      client_id bigint not null
      source_id bigint
      text_field text not null
      sentiment character varying(50)
      sentiment_score double precision
      keywords jsonb
      embedding vector(384) storage plain
      language character varying(10) not null default 'es'::character varying
      created_at timestamp with time zone not null default now()
    $$),
    ('text_summary', 'index', $$
      idx_text_summary_client_id btree (client_id)
      idx_text_summary_source_id btree (source_id)
      idx_text_summary_sentiment btree (sentiment)
      idx_text_summary_created_at btree (created_at)
      idx_text_summary_keywords gin (keywords)
      idx_text_summary_embedding ivfflat (embedding vector_cosine_ops)
    $$),
    ('text_summary', 'constraint', $$
      pk_text_summary PRIMARY KEY (id)
      fk_text_summary_source FOREIGN KEY (client_id, source_id) REFERENCES data_sources(client_id, id) ON DELETE SET NULL (source_id)
    $$),
    ('trend_signals', 'column', $$
      id bigint not null default nextval('trend_signals_id_seq'::regclass)
      sector character varying(255) not null
      term character varying(255) not null
      period_start timestamp with time zone not null
      period_end timestamp with time zone not null
      frequency integer not null default 0
      delta_pct double precision
      status trend_status not null default 'stable'::trend_status
      metadata jsonb
      created_at timestamp with time zone not null default now()
    $$),
    ('trend_signals', 'index', $$
      idx_trend_signals_sector_term btree (sector, term)
      idx_trend_signals_period btree (period_start, period_end)
      idx_trend_signals_sector btree (sector)
      idx_trend_signals_term btree (term)
      idx_trend_signals_status btree (status)
      idx_trend_signals_delta_pct btree (delta_pct)
    $$),
    ('trend_signals', 'constraint', $$
      pk_trend_signals PRIMARY KEY (id)
      ck_trend_signals_period_order CHECK (period_end >= period_start)
      ck_trend_signals_frequency_not_negative CHECK (frequency >= 0)
    $$),
    ('clusters', 'column', $$
      id bigint not null default nextval('clusters_id_seq'::regclass)
      client_id bigint not null
      cluster_id integer not null
      cluster_name character varying(255)
      features_json jsonb not null
      centroid jsonb
      distance_to_centroid double precision
      silhouette_score double precision
      created_at timestamp with time zone not null default now()
      updated_at timestamp with time zone not null default now()
    $$),
    ('clusters', 'index', $$
      idx_clusters_client_cluster btree (client_id, cluster_id)
      idx_clusters_client_id btree (client_id)
      idx_clusters_cluster_id btree (cluster_id)
      idx_clusters_features gin (features_json)
    $$),
    ('clusters', 'constraint', $$
      pk_clusters PRIMARY KEY (id)
      ck_clusters_distance_not_negative CHECK (distance_to_centroid >= 0::double precision)
      ck_clusters_silhouette_range CHECK (silhouette_score >= '-1'::integer::double precision AND silhouette_score <= 1::double precision)
    $$),
    ('anomaly_log', 'column', $$
      id bigint not null default nextval('anomaly_log_id_seq'::regclass)
      client_id bigint not null
      source_id bigint
      kpi_name character varying(255) not null
      detected_at timestamp with time zone not null default now()
      value numeric not null
      expected_value numeric
      deviation double precision
      reason text
      severity anomaly_severity not null default 'medium'::anomaly_severity
      method character varying(100)
      metadata jsonb
    $$),
    ('anomaly_log', 'index', $$
      idx_anomaly_log_client_kpi btree (client_id, kpi_name)
      idx_anomaly_log_client_id btree (client_id)
      idx_anomaly_log_source_id btree (source_id)
      idx_anomaly_log_kpi_name btree (kpi_name)
      idx_anomaly_log_detected_at btree (detected_at)
      idx_anomaly_log_severity btree (severity)
    $$),
    ('anomaly_log', 'constraint', $$
      pk_anomaly_log PRIMARY KEY (id)
      fk_anomaly_log_source FOREIGN KEY (client_id, source_id) REFERENCES data_sources(client_id, id) ON DELETE SET NULL (source_id)
      ck_anomaly_log_value_finite CHECK (value > '-Infinity'::numeric AND value < 'Infinity'::numeric)
      ck_anomaly_log_expected_value_finite CHECK (expected_value > '-Infinity'::numeric AND expected_value < 'Infinity'::numeric)
    $$)
),
expected_parts AS (
  SELECT relation, kind, split_part(line, ' ', 1) AS name, substr(line, strpos(line, ' ') + 1) AS definition
  FROM expected_lines, regexp_split_to_table(btrim(lines, E' \r\n'), '\s*\n\s*') AS line
),
expected AS (
  SELECT * FROM expected_parts
  UNION ALL
  SELECT relation, 'table', relation, count(*) || ' columns' FROM expected_parts WHERE kind = 'column' GROUP BY relation
),
schemas AS (
  SELECT oid FROM pg_namespace WHERE nspname = current_schema()
),
relations AS (
  SELECT pg_class.oid, relname::text AS relation, relpersistence
  FROM pg_class JOIN schemas ON relnamespace = schemas.oid
  WHERE relkind IN ('r', 'p') AND relname IN (SELECT relation FROM expected)
),
columns AS (
  SELECT relations.relation, attname::text AS name,
    format_type(atttypid, atttypmod)
      || CASE WHEN attnotnull THEN ' not null' ELSE '' END
      || coalesce(' default ' || pg_get_expr(adbin, adrelid), '')
      || CASE WHEN attstorage = typstorage THEN '' ELSE ' storage ' || storage END AS definition
  FROM relations
  JOIN pg_attribute ON attrelid = relations.oid AND attnum > 0 AND NOT attisdropped
  JOIN pg_type ON pg_type.oid = atttypid
  JOIN (VALUES ('p', 'plain'), ('m', 'main'), ('e', 'external'), ('x', 'extended')) AS storages (code, storage)
    ON code = attstorage
  LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
),
found AS (
  SELECT '' AS relation, 'type' AS kind, typname::text AS name,
    string_agg(enumlabel, ', ' ORDER BY enumsortorder) AS definition
  FROM pg_type JOIN schemas ON typnamespace = schemas.oid JOIN pg_enum ON enumtypid = pg_type.oid
  WHERE typname IN (SELECT name FROM expected WHERE kind = 'type')
  GROUP BY typname
  UNION ALL
  SELECT relation, 'table', relation,
    (SELECT count(*) FROM columns WHERE columns.relation = relations.relation) || ' columns'
      || CASE relpersistence WHEN 'u' THEN ', unlogged' ELSE '' END
  FROM relations
  UNION ALL
  SELECT relation, 'column', name, definition FROM columns
  UNION ALL
  SELECT relation, 'index', relname::text,
    CASE WHEN indisunique THEN 'unique ' ELSE '' END
      || regexp_replace(pg_get_indexdef(indexrelid), '^.* USING ', '')
      || CASE WHEN indisvalid THEN '' ELSE ' invalid' END
  FROM relations
  JOIN pg_index ON indrelid = relations.oid
  JOIN pg_class ON pg_class.oid = indexrelid
  WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND conrelid = indrelid)
  UNION ALL
  SELECT relation, 'constraint', conname::text, pg_get_constraintdef(pg_constraint.oid, true)
  FROM relations JOIN pg_constraint ON conrelid = relations.oid AND contype IN ('p', 'u', 'f', 'c', 'x')
),
compared AS (
  SELECT relation, kind, name, expected.definition AS wanted, found.definition AS actual,
    CASE
      WHEN found.definition IS NULL THEN 'MISSING'
      WHEN expected.definition IS NULL THEN 'EXTRA'
      WHEN found.definition = expected.definition THEN 'OK'
      -- Method, parameters and precision of the vector index follow the number of rows.
      WHEN name = 'idx_text_summary_embedding' AND found.definition ~ accepted_vector_index THEN 'OK'
      ELSE 'DIFFERENT'
    END AS verdict
  FROM expected FULL JOIN found USING (relation, kind, name)
  CROSS JOIN (VALUES (
    '^(ivfflat|hnsw) \((embedding vector_cosine_ops|\(\(embedding\)::halfvec\(384\)\) halfvec_cosine_ops)\)( WITH \([^()]*\))?$'
  )) AS pattern (accepted_vector_index)
  -- Of a table that is missing, one row is enough.
  WHERE kind IN ('type', 'table') OR relation IN (SELECT relation FROM relations)
  UNION ALL
  SELECT '', 'extension', 'vector', 'CREATE EXTENSION vector;', extversion,
    CASE WHEN extversion IS NULL THEN 'MISSING' ELSE 'OK' END
  FROM (VALUES (1)) AS always LEFT JOIN pg_extension ON extname = 'vector'
  UNION ALL
  SELECT '', 'revision', '', '003', stamp,
    CASE WHEN stamp >= '003' THEN 'OK' WHEN stamp = '' THEN 'MISSING' ELSE 'DIFFERENT' END
  FROM (VALUES (:'revision')) AS version (stamp)
),
report AS (
  SELECT verdict,
    row_number() OVER (
      ORDER BY array_position('{"",kpi_summary,text_summary,trend_signals,clusters,anomaly_log}', relation),
        array_position('{extension,revision,type,table,column,index,constraint}', kind), name
    ) AS position,
    format('%-10s %-14s %-11s %-40s ', verdict, relation, kind, CASE kind WHEN 'table' THEN '' ELSE name END)
      || CASE verdict WHEN 'MISSING' THEN 'expected: ' || wanted ELSE actual END
      || CASE verdict WHEN 'DIFFERENT' THEN format(E'\n%79sexpected: %s', '', wanted) ELSE '' END AS line
  FROM compared
  WHERE kind <> 'column' OR verdict <> 'OK'
)
SELECT string_agg(line, E'\n' ORDER BY position) AS report,
  count(*) FILTER (WHERE verdict IN ('MISSING', 'DIFFERENT')) > 0 AS wrong,
  format('Analytics tables of schema %s in database %s', current_schema(), current_database()) AS title
FROM report \gset

\echo :title
\echo :report
\if :wrong
  DO $$
  BEGIN
    RAISE EXCEPTION 'the analytics tables are not what revision 003 makes: see the rows MISSING and DIFFERENT above';
  END
  $$;
\endif
COMMIT;
\echo Everything is what revision 003 makes.
