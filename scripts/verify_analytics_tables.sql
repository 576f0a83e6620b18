-- Compares the analytics tables of the current schema with the revision of the database, 003 or later, and with the
-- newest, 003, if it is at another revision. It only reads.
--
-- Generated from the manifests by `make generate`: change tools/templates/, not this file.
-- Run it with psql, by -f or on standard input. Each row is OK, MISSING, DIFFERENT, or EXTRA: not part of the revision.
-- If anything is missing or different, psql exits with status 3.

\set ON_ERROR_STOP on
\set QUIET on
\set VERBOSITY terse

BEGIN READ ONLY;

-- Other roles can create functions and operators in the schema: this script calls those of pg_catalog.
SELECT coalesce(pg_catalog.current_schema(), '') AS schema,
  pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true) AS search_path \gset
-- Definitions name no schema if the search_path has the schemas of tables and extension.
SELECT
  EXISTS (SELECT FROM pg_catalog.pg_class WHERE relname OPERATOR(pg_catalog.=) 'alembic_version' AND relkind OPERATOR(pg_catalog.=) 'r'
          AND relnamespace OPERATOR(pg_catalog.=) pg_catalog.to_regnamespace(pg_catalog.quote_ident(:'schema'))) AS stamped,
  pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', pg_catalog.quote_ident(nullif(:'schema', '')),
    (SELECT pg_catalog.quote_ident(nspname) FROM pg_catalog.pg_extension JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) extnamespace
     WHERE extname OPERATOR(pg_catalog.=) 'vector'), 'pg_temp'), true) AS search_path \gset
\set revision ''
-- A query that names the version table would fail if the table does not exist.
\if :stamped
  SELECT coalesce(pg_catalog.string_agg(version_num, ' and ' ORDER BY version_num), '') AS revision
  FROM :"schema".alembic_version \gset
\endif
SELECT CASE WHEN :'revision' IN ('003') THEN :'revision' ELSE '003' END AS declared \gset
SELECT pg_catalog.set_config('syntegra.declared', :'declared', true) \gset

-- The queries of the catalog are those of `syntegra-db verify`.
WITH declared (since, until, relation, kind, name, definition) AS (
  VALUES
    ('003', NULL, '', 'type', 'anomaly_severity', 'low, medium, high, critical'),
    ('003', NULL, '', 'type', 'trend_status', 'emergent, stable, declining'),
    ('003', NULL, 'anomaly_log', 'table', 'anomaly_log', '12 columns'),
    ('003', NULL, 'anomaly_log', 'column', 'id', 'bigint NOT NULL DEFAULT nextval(''anomaly_log_id_seq''::regclass) STORAGE PLAIN'),
    ('003', NULL, 'anomaly_log', 'column', 'client_id', 'bigint NOT NULL STORAGE PLAIN'),
    ('003', NULL, 'anomaly_log', 'column', 'source_id', 'bigint NULL STORAGE PLAIN'),
    ('003', NULL, 'anomaly_log', 'column', 'kpi_name', 'character varying(255) NOT NULL STORAGE EXTENDED'),
    ('003', NULL, 'anomaly_log', 'column', 'detected_at', 'timestamp with time zone NOT NULL DEFAULT now() STORAGE PLAIN'),
    ('003', NULL, 'anomaly_log', 'column', 'value', 'numeric NOT NULL STORAGE MAIN'),
    ('003', NULL, 'anomaly_log', 'column', 'expected_value', 'numeric NULL STORAGE MAIN'),
    ('003', NULL, 'anomaly_log', 'column', 'deviation', 'double precision NULL STORAGE PLAIN'),
    ('003', NULL, 'anomaly_log', 'column', 'reason', 'text NULL STORAGE EXTENDED'),
    ('003', NULL, 'anomaly_log', 'column', 'severity', 'anomaly_severity NOT NULL DEFAULT ''medium''::anomaly_severity STORAGE PLAIN'),
    ('003', NULL, 'anomaly_log', 'column', 'method', 'character varying(100) NULL STORAGE EXTENDED'),
    ('003', NULL, 'anomaly_log', 'column', 'metadata', 'jsonb NULL STORAGE EXTENDED'),
    ('003', NULL, 'anomaly_log', 'index', 'idx_anomaly_log_client_id', 'btree (client_id)'),
    ('003', NULL, 'anomaly_log', 'index', 'idx_anomaly_log_client_kpi', 'btree (client_id, kpi_name)'),
    ('003', NULL, 'anomaly_log', 'index', 'idx_anomaly_log_detected_at', 'btree (detected_at)'),
    ('003', NULL, 'anomaly_log', 'index', 'idx_anomaly_log_kpi_name', 'btree (kpi_name)'),
    ('003', NULL, 'anomaly_log', 'index', 'idx_anomaly_log_severity', 'btree (severity)'),
    ('003', NULL, 'anomaly_log', 'index', 'idx_anomaly_log_source_id', 'btree (source_id)'),
    ('003', NULL, 'anomaly_log', 'constraint', 'pk_anomaly_log', 'PRIMARY KEY (id)'),
    ('003', NULL, 'anomaly_log', 'constraint', 'ck_anomaly_log_expected_value_finite', 'CHECK (((expected_value > ''-Infinity''::numeric) AND (expected_value < ''Infinity''::numeric)))'),
    ('003', NULL, 'anomaly_log', 'constraint', 'ck_anomaly_log_value_finite', 'CHECK (((value > ''-Infinity''::numeric) AND (value < ''Infinity''::numeric)))'),
    ('003', NULL, 'anomaly_log', 'constraint', 'fk_anomaly_log_source', 'FOREIGN KEY (client_id, source_id) REFERENCES data_sources(client_id, id) ON DELETE SET NULL (source_id)'),
    ('003', NULL, 'anomaly_log', 'sequence', 'anomaly_log_id_seq', 'AS bigint INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 NO CYCLE OWNED BY anomaly_log.id'),
    ('003', NULL, 'clusters', 'table', 'clusters', '10 columns'),
    ('003', NULL, 'clusters', 'column', 'id', 'bigint NOT NULL DEFAULT nextval(''clusters_id_seq''::regclass) STORAGE PLAIN'),
    ('003', NULL, 'clusters', 'column', 'client_id', 'bigint NOT NULL STORAGE PLAIN'),
    ('003', NULL, 'clusters', 'column', 'cluster_id', 'integer NOT NULL STORAGE PLAIN'),
    ('003', NULL, 'clusters', 'column', 'cluster_name', 'character varying(255) NULL STORAGE EXTENDED'),
    ('003', NULL, 'clusters', 'column', 'features_json', 'jsonb NOT NULL STORAGE EXTENDED'),
    ('003', NULL, 'clusters', 'column', 'centroid', 'jsonb NULL STORAGE EXTENDED'),
    ('003', NULL, 'clusters', 'column', 'distance_to_centroid', 'double precision NULL STORAGE PLAIN'),
    ('003', NULL, 'clusters', 'column', 'silhouette_score', 'double precision NULL STORAGE PLAIN'),
    ('003', NULL, 'clusters', 'column', 'created_at', 'timestamp with time zone NOT NULL DEFAULT now() STORAGE PLAIN'),
    ('003', NULL, 'clusters', 'column', 'updated_at', 'timestamp with time zone NOT NULL DEFAULT now() STORAGE PLAIN'),
    ('003', NULL, 'clusters', 'index', 'idx_clusters_client_cluster', 'btree (client_id, cluster_id)'),
    ('003', NULL, 'clusters', 'index', 'idx_clusters_client_id', 'btree (client_id)'),
    ('003', NULL, 'clusters', 'index', 'idx_clusters_cluster_id', 'btree (cluster_id)'),
    ('003', NULL, 'clusters', 'index', 'idx_clusters_features', 'gin (features_json)'),
    ('003', NULL, 'clusters', 'constraint', 'pk_clusters', 'PRIMARY KEY (id)'),
    ('003', NULL, 'clusters', 'constraint', 'ck_clusters_distance_not_negative', 'CHECK ((distance_to_centroid >= (0)::double precision))'),
    ('003', NULL, 'clusters', 'constraint', 'ck_clusters_silhouette_range', 'CHECK (((silhouette_score >= (''-1''::integer)::double precision) AND (silhouette_score <= (1)::double precision)))'),
    ('003', NULL, 'clusters', 'sequence', 'clusters_id_seq', 'AS bigint INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 NO CYCLE OWNED BY clusters.id'),
    ('003', NULL, 'kpi_summary', 'table', 'kpi_summary', '9 columns'),
    ('003', NULL, 'kpi_summary', 'column', 'id', 'bigint NOT NULL DEFAULT nextval(''kpi_summary_id_seq''::regclass) STORAGE PLAIN'),
    ('003', NULL, 'kpi_summary', 'column', 'client_id', 'bigint NOT NULL STORAGE PLAIN'),
    ('003', NULL, 'kpi_summary', 'column', 'source_id', 'bigint NULL STORAGE PLAIN'),
    ('003', NULL, 'kpi_summary', 'column', 'kpi_name', 'character varying(255) NOT NULL STORAGE EXTENDED'),
    ('003', NULL, 'kpi_summary', 'column', 'kpi_value', 'numeric NOT NULL STORAGE MAIN'),
    ('003', NULL, 'kpi_summary', 'column', 'period_start', 'timestamp with time zone NOT NULL STORAGE PLAIN'),
    ('003', NULL, 'kpi_summary', 'column', 'period_end', 'timestamp with time zone NOT NULL STORAGE PLAIN'),
    ('003', NULL, 'kpi_summary', 'column', 'calculated_at', 'timestamp with time zone NOT NULL DEFAULT now() STORAGE PLAIN'),
    ('003', NULL, 'kpi_summary', 'column', 'metadata', 'jsonb NULL STORAGE EXTENDED'),
    ('003', NULL, 'kpi_summary', 'index', 'idx_kpi_summary_client_id', 'btree (client_id)'),
    ('003', NULL, 'kpi_summary', 'index', 'idx_kpi_summary_client_kpi_period', 'btree (client_id, kpi_name, period_start)'),
    ('003', NULL, 'kpi_summary', 'index', 'idx_kpi_summary_kpi_name', 'btree (kpi_name)'),
    ('003', NULL, 'kpi_summary', 'index', 'idx_kpi_summary_period_start', 'btree (period_start)'),
    ('003', NULL, 'kpi_summary', 'index', 'idx_kpi_summary_source_id', 'btree (source_id)'),
    ('003', NULL, 'kpi_summary', 'constraint', 'pk_kpi_summary', 'PRIMARY KEY (id)'),
    ('003', NULL, 'kpi_summary', 'constraint', 'ck_kpi_summary_kpi_value_finite', 'CHECK (((kpi_value > ''-Infinity''::numeric) AND (kpi_value < ''Infinity''::numeric)))'),
    ('003', NULL, 'kpi_summary', 'constraint', 'ck_kpi_summary_period_order', 'CHECK ((period_end >= period_start))'),
    ('003', NULL, 'kpi_summary', 'constraint', 'fk_kpi_summary_source', 'FOREIGN KEY (client_id, source_id) REFERENCES data_sources(client_id, id) ON DELETE SET NULL (source_id)'),
    ('003', NULL, 'kpi_summary', 'sequence', 'kpi_summary_id_seq', 'AS bigint INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 NO CYCLE OWNED BY kpi_summary.id'),
    ('003', NULL, 'text_summary', 'table', 'text_summary', '10 columns'),
    ('003', NULL, 'text_summary', 'column', 'id', 'bigint NOT NULL DEFAULT nextval(''text_summary_id_seq''::regclass) STORAGE PLAIN'),
    ('003', NULL, 'text_summary', 'column', 'client_id', 'bigint NOT NULL STORAGE PLAIN'),
    ('003', NULL, 'text_summary', 'column', 'source_id', 'bigint NULL STORAGE PLAIN'),
    ('003', NULL, 'text_summary', 'column', 'text_field', 'text NOT NULL STORAGE EXTENDED'),
    ('003', NULL, 'text_summary', 'column', 'sentiment', 'character varying(50) NULL STORAGE EXTENDED'),
    ('003', NULL, 'text_summary', 'column', 'sentiment_score', 'double precision NULL STORAGE PLAIN'),
    ('003', NULL, 'text_summary', 'column', 'keywords', 'jsonb NULL STORAGE EXTENDED'),
    ('003', NULL, 'text_summary', 'column', 'embedding', 'vector(384) NULL STORAGE PLAIN'),
    ('003', NULL, 'text_summary', 'column', 'language', 'character varying(10) NOT NULL DEFAULT ''es''::character varying STORAGE EXTENDED'),
    ('003', NULL, 'text_summary', 'column', 'created_at', 'timestamp with time zone NOT NULL DEFAULT now() STORAGE PLAIN'),
    ('003', NULL, 'text_summary', 'index', 'idx_text_summary_client_id', 'btree (client_id)'),
    ('003', NULL, 'text_summary', 'index', 'idx_text_summary_created_at', 'btree (created_at)'),
    ('003', NULL, 'text_summary', 'index', 'idx_text_summary_embedding', 'ivfflat (embedding vector_cosine_ops) WITH (lists=''100'')'),
    ('003', NULL, 'text_summary', 'index', 'idx_text_summary_keywords', 'gin (keywords)'),
    ('003', NULL, 'text_summary', 'index', 'idx_text_summary_sentiment', 'btree (sentiment)'),
    ('003', NULL, 'text_summary', 'index', 'idx_text_summary_source_id', 'btree (source_id)'),
    ('003', NULL, 'text_summary', 'constraint', 'pk_text_summary', 'PRIMARY KEY (id)'),
    ('003', NULL, 'text_summary', 'constraint', 'fk_text_summary_source', 'FOREIGN KEY (client_id, source_id) REFERENCES data_sources(client_id, id) ON DELETE SET NULL (source_id)'),
    ('003', NULL, 'text_summary', 'sequence', 'text_summary_id_seq', 'AS bigint INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 NO CYCLE OWNED BY text_summary.id'),
    ('003', NULL, 'trend_signals', 'table', 'trend_signals', '10 columns'),
    ('003', NULL, 'trend_signals', 'column', 'id', 'bigint NOT NULL DEFAULT nextval(''trend_signals_id_seq''::regclass) STORAGE PLAIN'),
    ('003', NULL, 'trend_signals', 'column', 'sector', 'character varying(255) NOT NULL STORAGE EXTENDED'),
    ('003', NULL, 'trend_signals', 'column', 'term', 'character varying(255) NOT NULL STORAGE EXTENDED'),
    ('003', NULL, 'trend_signals', 'column', 'period_start', 'timestamp with time zone NOT NULL STORAGE PLAIN'),
    ('003', NULL, 'trend_signals', 'column', 'period_end', 'timestamp with time zone NOT NULL STORAGE PLAIN'),
    ('003', NULL, 'trend_signals', 'column', 'frequency', 'integer NOT NULL DEFAULT 0 STORAGE PLAIN'),
    ('003', NULL, 'trend_signals', 'column', 'delta_pct', 'double precision NULL STORAGE PLAIN'),
    ('003', NULL, 'trend_signals', 'column', 'status', 'trend_status NOT NULL DEFAULT ''stable''::trend_status STORAGE PLAIN'),
    ('003', NULL, 'trend_signals', 'column', 'metadata', 'jsonb NULL STORAGE EXTENDED'),
    ('003', NULL, 'trend_signals', 'column', 'created_at', 'timestamp with time zone NOT NULL DEFAULT now() STORAGE PLAIN'),
    ('003', NULL, 'trend_signals', 'index', 'idx_trend_signals_delta_pct', 'btree (delta_pct)'),
    ('003', NULL, 'trend_signals', 'index', 'idx_trend_signals_period', 'btree (period_start, period_end)'),
    ('003', NULL, 'trend_signals', 'index', 'idx_trend_signals_sector', 'btree (sector)'),
    ('003', NULL, 'trend_signals', 'index', 'idx_trend_signals_sector_term', 'btree (sector, term)'),
    ('003', NULL, 'trend_signals', 'index', 'idx_trend_signals_status', 'btree (status)'),
    ('003', NULL, 'trend_signals', 'index', 'idx_trend_signals_term', 'btree (term)'),
    ('003', NULL, 'trend_signals', 'constraint', 'pk_trend_signals', 'PRIMARY KEY (id)'),
    ('003', NULL, 'trend_signals', 'constraint', 'ck_trend_signals_frequency_not_negative', 'CHECK ((frequency >= 0))'),
    ('003', NULL, 'trend_signals', 'constraint', 'ck_trend_signals_period_order', 'CHECK ((period_end >= period_start))'),
    ('003', NULL, 'trend_signals', 'sequence', 'trend_signals_id_seq', 'AS bigint INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 NO CYCLE OWNED BY trend_signals.id')
),
expected AS (
  SELECT relation, kind, name, definition FROM declared
  WHERE since OPERATOR(pg_catalog.<=) :'declared' AND (until IS NULL OR until OPERATOR(pg_catalog.>) :'declared')
),
tables AS (
  SELECT t.oid, relname AS name,
         CASE WHEN relispartition THEN 'partition' ELSE CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'f' THEN 'foreign table'
    WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'c' THEN 'composite type' WHEN 'S' THEN 'sequence'
    WHEN 'i' THEN 'index' WHEN 'I' THEN 'partitioned index' ELSE 'TOAST table' END END AS kind,
         CASE relpersistence WHEN 'p' THEN 'permanent' WHEN 'u' THEN 'unlogged' ELSE 'temporary' END AS persistence,
         pg_catalog.concat(CASE WHEN relrowsecurity THEN 'on' ELSE 'off' END,
                CASE WHEN relforcerowsecurity THEN ', forced' END) AS row_security,
         ARRAY(SELECT inhparent::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.pg_inherits WHERE inhrelid OPERATOR(pg_catalog.=) t.oid ORDER BY 1) AS parents,
         ARRAY(SELECT inhrelid::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.pg_inherits JOIN pg_catalog.pg_class AS child ON child.oid OPERATOR(pg_catalog.=) inhrelid
               WHERE inhparent OPERATOR(pg_catalog.=) t.oid AND NOT child.relispartition ORDER BY 1) AS children,
         pg_catalog.pg_get_partkeydef(t.oid) AS partition_key,
         pg_catalog.obj_description(t.oid, 'pg_class') AS comment, pg_catalog.pg_get_userbyid(relowner) AS owner,
         pg_catalog.row_security_active(t.oid) AS hides_rows,
         ARRAY(SELECT privilege FROM pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS privilege
               WHERE NOT pg_catalog.has_any_column_privilege(t.oid, privilege))
         OPERATOR(pg_catalog.||) CASE WHEN pg_catalog.has_table_privilege(t.oid, 'DELETE') THEN ARRAY[]::pg_catalog.text[] ELSE ARRAY['DELETE'] END AS missing
  FROM pg_catalog.pg_class AS t JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) relnamespace
  WHERE nspname OPERATOR(pg_catalog.=) :'schema' AND relname OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT name FROM expected WHERE kind IN ('table', 'type')))
  ORDER BY relname
),
columns AS (
  SELECT attrelid AS table_oid, attname AS name, pg_catalog.format_type(atttypid, atttypmod) AS type,
         CASE WHEN NOT attnotnull THEN 'NULL'
              WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conrelid OPERATOR(pg_catalog.=) attrelid AND contype OPERATOR(pg_catalog.=) 'n'
                           AND conkey OPERATOR(pg_catalog.=) ARRAY[attnum] AND NOT convalidated) THEN 'NOT NULL NOT VALID'
              ELSE 'NOT NULL' END AS nullability,
         CASE attstorage WHEN 'p' THEN 'PLAIN' WHEN 'm' THEN 'MAIN' WHEN 'e' THEN 'EXTERNAL'
              ELSE 'EXTENDED' END AS storage,
         CASE WHEN attidentity OPERATOR(pg_catalog.=) 'a' THEN 'GENERATED ALWAYS AS IDENTITY'
              WHEN attidentity OPERATOR(pg_catalog.=) 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY'
              WHEN attgenerated OPERATOR(pg_catalog.=) 's' THEN pg_catalog.format('GENERATED ALWAYS AS (%s) STORED', pg_catalog.pg_get_expr(adbin, adrelid))
              WHEN attgenerated OPERATOR(pg_catalog.=) 'v' THEN pg_catalog.format('GENERATED ALWAYS AS (%s) VIRTUAL', pg_catalog.pg_get_expr(adbin, adrelid))
              ELSE coalesce(pg_catalog.pg_get_expr(adbin, adrelid), typdefault) END AS "default",
         CASE WHEN attcollation OPERATOR(pg_catalog.<>) typcollation THEN attcollation::pg_catalog.regcollation::pg_catalog.text END AS collation,
         pg_catalog.col_description(attrelid, attnum) AS comment
  FROM pg_catalog.pg_attribute
  JOIN pg_catalog.pg_type ON pg_type.oid OPERATOR(pg_catalog.=) atttypid
  LEFT JOIN pg_catalog.pg_attrdef ON adrelid OPERATOR(pg_catalog.=) attrelid AND adnum OPERATOR(pg_catalog.=) attnum
  WHERE attrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT oid FROM tables)) AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped
  ORDER BY attrelid, attnum
),
constraints AS (
  SELECT conrelid AS table_oid, conname AS name,
         pg_catalog.concat(pg_catalog.pg_get_constraintdef(c.oid),
                CASE WHEN contype IN ('p', 'u', 'x') AND NOT (indisvalid AND indisready) THEN ' INVALID' END)
         AS definition,
         ARRAY(SELECT attname::pg_catalog.text FROM pg_catalog.pg_attribute WHERE attrelid OPERATOR(pg_catalog.=) conrelid AND attnum OPERATOR(pg_catalog.=) ANY (conkey)) AS columns,
         CASE WHEN contype OPERATOR(pg_catalog.=) 'f' THEN confrelid::pg_catalog.regclass::pg_catalog.text END AS target, confdeltype::pg_catalog.text AS on_delete
  FROM pg_catalog.pg_constraint AS c LEFT JOIN pg_catalog.pg_index ON indexrelid OPERATOR(pg_catalog.=) conindid
  WHERE conrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT oid FROM tables)) AND contype IN ('p', 'u', 'x', 'f', 'c')
  ORDER BY pg_catalog.array_position(ARRAY['p', 'u', 'x', 'c', 'f'], contype::pg_catalog.text), conname
),
indexes AS (
  SELECT indrelid AS table_oid, i.relname AS name,
         pg_catalog.concat(CASE WHEN indisunique THEN 'UNIQUE ' END,
                pg_catalog.substr(pg_catalog.pg_get_indexdef(indexrelid),
                       pg_catalog.length(pg_catalog.format('CREATE INDEX %I ON %I.%I USING ', i.relname, nspname, t.relname))
                       OPERATOR(pg_catalog.+) CASE WHEN indisunique THEN pg_catalog.length('UNIQUE ') ELSE 0 END
                       OPERATOR(pg_catalog.+) CASE WHEN i.relkind OPERATOR(pg_catalog.=) 'I' THEN pg_catalog.length('ONLY ') ELSE 0 END OPERATOR(pg_catalog.+) 1),
                CASE WHEN NOT (indisvalid AND indisready) THEN ' INVALID' END) AS definition
  FROM pg_catalog.pg_index
  JOIN pg_catalog.pg_class AS i ON i.oid OPERATOR(pg_catalog.=) indexrelid
  JOIN pg_catalog.pg_class AS t ON t.oid OPERATOR(pg_catalog.=) indrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.relnamespace
  WHERE indrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT oid FROM tables))
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conindid OPERATOR(pg_catalog.=) indexrelid AND contype IN ('p', 'u', 'x'))
  ORDER BY name
),
sequences AS (
  WITH used AS (
    SELECT objid AS sequence, refobjid AS table_oid, refobjid::pg_catalog.regclass OPERATOR(pg_catalog.||) '.' OPERATOR(pg_catalog.||) pg_catalog.quote_ident(attname) AS owner
    FROM pg_catalog.pg_depend JOIN pg_catalog.pg_attribute ON attrelid OPERATOR(pg_catalog.=) refobjid AND attnum OPERATOR(pg_catalog.=) refobjsubid
    WHERE classid OPERATOR(pg_catalog.=) 'pg_class'::pg_catalog.regclass AND refclassid OPERATOR(pg_catalog.=) 'pg_class'::pg_catalog.regclass AND deptype IN ('a', 'i')
      AND refobjid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT oid FROM tables))
    UNION ALL
    SELECT refobjid, adrelid, NULL
    FROM pg_catalog.pg_attrdef JOIN pg_catalog.pg_depend ON objid OPERATOR(pg_catalog.=) pg_attrdef.oid
    WHERE classid OPERATOR(pg_catalog.=) 'pg_attrdef'::pg_catalog.regclass AND refclassid OPERATOR(pg_catalog.=) 'pg_class'::pg_catalog.regclass AND deptype OPERATOR(pg_catalog.=) 'n'
      AND adrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT oid FROM tables))
  )
  SELECT table_oid, relname AS name, pg_catalog.has_sequence_privilege(seqrelid, 'USAGE, UPDATE') AS usable,
         pg_catalog.concat(CASE WHEN relpersistence OPERATOR(pg_catalog.=) 'u' THEN 'UNLOGGED ' END,
                pg_catalog.format('AS %s INCREMENT BY %s MINVALUE %s MAXVALUE %s %s OWNED BY %s', seqtypid::pg_catalog.regtype,
                       seqincrement, seqmin, seqmax, CASE WHEN seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END,
                       coalesce(pg_catalog.max(owner), 'NONE'))) AS definition
  FROM used JOIN pg_catalog.pg_sequence ON seqrelid OPERATOR(pg_catalog.=) sequence JOIN pg_catalog.pg_class ON pg_class.oid OPERATOR(pg_catalog.=) seqrelid
  GROUP BY table_oid, relname, relpersistence, pg_sequence.seqrelid
  ORDER BY relname
),
types AS (
  SELECT t.oid::pg_catalog.regtype::pg_catalog.text AS name,
         ARRAY(SELECT enumlabel::pg_catalog.text FROM pg_catalog.pg_enum WHERE enumtypid OPERATOR(pg_catalog.=) t.oid ORDER BY enumsortorder) AS labels
  FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) typnamespace
  WHERE typtype OPERATOR(pg_catalog.=) 'e'
    AND (nspname OPERATOR(pg_catalog.=) :'schema' AND typname OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT name FROM expected WHERE kind IN ('table', 'type')))
         OR t.oid IN (SELECT atttypid FROM pg_catalog.pg_attribute WHERE attrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT oid FROM tables)) AND attnum OPERATOR(pg_catalog.>) 0))
  ORDER BY typname
),
parts AS (
  SELECT table_oid, 'column' AS kind, name,
    pg_catalog.concat(type, ' COLLATE ' OPERATOR(pg_catalog.||) "collation", ' ' OPERATOR(pg_catalog.||) nullability, ' DEFAULT ' OPERATOR(pg_catalog.||) "default", ' STORAGE ' OPERATOR(pg_catalog.||) storage)
      AS definition
  FROM columns
  UNION ALL SELECT table_oid, 'constraint', name, definition FROM constraints
  UNION ALL SELECT table_oid, 'index', name, definition FROM indexes
  UNION ALL SELECT table_oid, 'sequence', name, definition FROM sequences
),
installed AS (
  SELECT tables.name::pg_catalog.text AS relation, parts.kind, parts.name::pg_catalog.text, definition
  FROM parts JOIN tables ON oid OPERATOR(pg_catalog.=) table_oid
  UNION ALL
  SELECT name, 'table', name,
    pg_catalog.concat((SELECT pg_catalog.count(*) FROM columns WHERE table_oid OPERATOR(pg_catalog.=) oid), ' columns',
      CASE WHEN persistence OPERATOR(pg_catalog.<>) 'permanent' THEN ', ' OPERATOR(pg_catalog.||) persistence END,
      CASE WHEN kind IN ('view', 'foreign table') THEN ', ' OPERATOR(pg_catalog.||) kind END,
      ', partitioned by ' OPERATOR(pg_catalog.||) partition_key)
  FROM tables
  UNION ALL
  SELECT '', 'type', name, pg_catalog.array_to_string(labels, ', ') FROM types
),
compared AS (
  SELECT relation, kind, name, expected.definition AS declared, installed.definition AS found,
    CASE
      WHEN installed.definition IS NULL THEN 'MISSING'
      WHEN expected.definition IS NULL THEN 'EXTRA'
      WHEN installed.definition OPERATOR(pg_catalog.=) expected.definition THEN 'OK'
      -- A rebuild chooses the method, parameters and precision of a vector index by the number of rows.
      WHEN name OPERATOR(pg_catalog.=) 'idx_text_summary_embedding' AND installed.definition OPERATOR(pg_catalog.~) '^(ivfflat|hnsw) \((embedding vector_cosine_ops|\(\(embedding\)::halfvec\(384\)\) halfvec_cosine_ops)\)( WITH \([^()]*\))?$' THEN 'OK'
      ELSE 'DIFFERENT'
    END AS result
  FROM expected FULL JOIN installed USING (relation, kind, name)
  -- If the table is missing, or a view has its name, that is one row: its columns, indexes and so on are not listed.
  WHERE kind IN ('type', 'table')
    OR relation IN (SELECT name FROM tables WHERE tables.kind NOT IN ('view', 'foreign table'))
  UNION ALL
  SELECT '', 'extension', 'vector', 'CREATE EXTENSION vector;', extversion,
    CASE WHEN extversion IS NULL THEN 'MISSING' ELSE 'OK' END
  FROM (VALUES (1)) AS one_row LEFT JOIN pg_catalog.pg_extension ON extname OPERATOR(pg_catalog.=) 'vector'
  UNION ALL
  SELECT '', 'revision', '', '003', stamp,
    CASE WHEN stamp OPERATOR(pg_catalog.>=) '003' THEN 'OK' WHEN stamp OPERATOR(pg_catalog.=) '' THEN 'MISSING' ELSE 'DIFFERENT' END
  FROM (VALUES (:'revision')) AS version (stamp)
),
report AS (
  SELECT result,
    pg_catalog.row_number() OVER (
      ORDER BY relation,
        pg_catalog.array_position('{extension,revision,type,table,column,index,constraint,sequence}', kind), name
    ) AS position,
    pg_catalog.format('%-10s %-14s %-11s %-40s ', result, relation, kind, CASE kind WHEN 'table' THEN '' ELSE name END)
      OPERATOR(pg_catalog.||) CASE result WHEN 'MISSING' THEN 'expected: ' OPERATOR(pg_catalog.||) declared ELSE found END
      OPERATOR(pg_catalog.||) CASE result WHEN 'DIFFERENT' THEN pg_catalog.format(E'\n%79sexpected: %s', '', declared) ELSE '' END AS line
  FROM compared
  WHERE kind OPERATOR(pg_catalog.<>) 'column' OR result OPERATOR(pg_catalog.<>) 'OK'
)
SELECT pg_catalog.string_agg(line, E'\n' ORDER BY position) AS report,
  pg_catalog.count(*) FILTER (WHERE result IN ('MISSING', 'DIFFERENT')) OPERATOR(pg_catalog.>) 0 AS is_different,
  pg_catalog.format('Analytics tables of schema %s in database %s', :'schema', pg_catalog.current_database()) AS title
FROM report \gset

\echo :title
\echo :report
\if :is_different
  DO $$
  BEGIN
    RAISE EXCEPTION 'the analytics tables do not match revision %: see the rows MISSING and DIFFERENT above',
      pg_catalog.current_setting('syntegra.declared');
  END
  $$;
\endif
COMMIT;
\echo The analytics tables match revision :declared.
