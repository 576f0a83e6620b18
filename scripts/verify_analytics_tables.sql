-- Compares the analytics tables of the current schema with revision 003. It only reads.
--
-- Generated from the manifest of revision 003 by `make generate`: change tools/templates/, not this file.
-- Run it with psql, by -f or on standard input. Each row is OK, MISSING, DIFFERENT, or EXTRA: not part of revision 003.
-- If anything is missing or different, psql exits with status 3.

\set ON_ERROR_STOP on
\set QUIET on
\set VERBOSITY terse

BEGIN READ ONLY;

-- A query that names the version table would fail if the table does not exist.
SELECT to_regclass(format('%I.alembic_version', current_schema())) IS NOT NULL AS stamped \gset
\set revision ''
\if :stamped
  SELECT coalesce(string_agg(version_num, ' and ' ORDER BY version_num), '') AS revision FROM alembic_version \gset
\endif

-- The queries of the catalog are those of `syntegra-db verify`.
WITH expected (relation, kind, name, definition) AS (
  VALUES
    ('', 'type', 'anomaly_severity', 'low, medium, high, critical'),
    ('', 'type', 'trend_status', 'emergent, stable, declining'),
    ('anomaly_log', 'table', 'anomaly_log', '12 columns'),
    ('anomaly_log', 'column', 'id', 'bigint NOT NULL DEFAULT nextval(''anomaly_log_id_seq''::regclass) STORAGE PLAIN'),
    ('anomaly_log', 'column', 'client_id', 'bigint NOT NULL STORAGE PLAIN'),
    ('anomaly_log', 'column', 'source_id', 'bigint NULL STORAGE PLAIN'),
    ('anomaly_log', 'column', 'kpi_name', 'character varying(255) NOT NULL STORAGE EXTENDED'),
    ('anomaly_log', 'column', 'detected_at', 'timestamp with time zone NOT NULL DEFAULT now() STORAGE PLAIN'),
    ('anomaly_log', 'column', 'value', 'numeric NOT NULL STORAGE MAIN'),
    ('anomaly_log', 'column', 'expected_value', 'numeric NULL STORAGE MAIN'),
    ('anomaly_log', 'column', 'deviation', 'double precision NULL STORAGE PLAIN'),
    ('anomaly_log', 'column', 'reason', 'text NULL STORAGE EXTENDED'),
    ('anomaly_log', 'column', 'severity', 'anomaly_severity NOT NULL DEFAULT ''medium''::anomaly_severity STORAGE PLAIN'),
    ('anomaly_log', 'column', 'method', 'character varying(100) NULL STORAGE EXTENDED'),
    ('anomaly_log', 'column', 'metadata', 'jsonb NULL STORAGE EXTENDED'),
    ('anomaly_log', 'index', 'idx_anomaly_log_client_id', 'btree (client_id)'),
    ('anomaly_log', 'index', 'idx_anomaly_log_client_kpi', 'btree (client_id, kpi_name)'),
    ('anomaly_log', 'index', 'idx_anomaly_log_detected_at', 'btree (detected_at)'),
    ('anomaly_log', 'index', 'idx_anomaly_log_kpi_name', 'btree (kpi_name)'),
    ('anomaly_log', 'index', 'idx_anomaly_log_severity', 'btree (severity)'),
    ('anomaly_log', 'index', 'idx_anomaly_log_source_id', 'btree (source_id)'),
    ('anomaly_log', 'constraint', 'pk_anomaly_log', 'PRIMARY KEY (id)'),
    ('anomaly_log', 'constraint', 'ck_anomaly_log_expected_value_finite', 'CHECK (((expected_value > ''-Infinity''::numeric) AND (expected_value < ''Infinity''::numeric)))'),
    ('anomaly_log', 'constraint', 'ck_anomaly_log_value_finite', 'CHECK (((value > ''-Infinity''::numeric) AND (value < ''Infinity''::numeric)))'),
    ('anomaly_log', 'constraint', 'fk_anomaly_log_source', 'FOREIGN KEY (client_id, source_id) REFERENCES data_sources(client_id, id) ON DELETE SET NULL (source_id)'),
    ('anomaly_log', 'sequence', 'anomaly_log_id_seq', 'AS bigint INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 NO CYCLE OWNED BY anomaly_log.id'),
    ('clusters', 'table', 'clusters', '10 columns'),
    ('clusters', 'column', 'id', 'bigint NOT NULL DEFAULT nextval(''clusters_id_seq''::regclass) STORAGE PLAIN'),
    ('clusters', 'column', 'client_id', 'bigint NOT NULL STORAGE PLAIN'),
    ('clusters', 'column', 'cluster_id', 'integer NOT NULL STORAGE PLAIN'),
    ('clusters', 'column', 'cluster_name', 'character varying(255) NULL STORAGE EXTENDED'),
    ('clusters', 'column', 'features_json', 'jsonb NOT NULL STORAGE EXTENDED'),
    ('clusters', 'column', 'centroid', 'jsonb NULL STORAGE EXTENDED'),
    ('clusters', 'column', 'distance_to_centroid', 'double precision NULL STORAGE PLAIN'),
    ('clusters', 'column', 'silhouette_score', 'double precision NULL STORAGE PLAIN'),
    ('clusters', 'column', 'created_at', 'timestamp with time zone NOT NULL DEFAULT now() STORAGE PLAIN'),
    ('clusters', 'column', 'updated_at', 'timestamp with time zone NOT NULL DEFAULT now() STORAGE PLAIN'),
    ('clusters', 'index', 'idx_clusters_client_cluster', 'btree (client_id, cluster_id)'),
    ('clusters', 'index', 'idx_clusters_client_id', 'btree (client_id)'),
    ('clusters', 'index', 'idx_clusters_cluster_id', 'btree (cluster_id)'),
    ('clusters', 'index', 'idx_clusters_features', 'gin (features_json)'),
    ('clusters', 'constraint', 'pk_clusters', 'PRIMARY KEY (id)'),
    ('clusters', 'constraint', 'ck_clusters_distance_not_negative', 'CHECK ((distance_to_centroid >= (0)::double precision))'),
    ('clusters', 'constraint', 'ck_clusters_silhouette_range', 'CHECK (((silhouette_score >= (''-1''::integer)::double precision) AND (silhouette_score <= (1)::double precision)))'),
    ('clusters', 'sequence', 'clusters_id_seq', 'AS bigint INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 NO CYCLE OWNED BY clusters.id'),
    ('kpi_summary', 'table', 'kpi_summary', '9 columns'),
    ('kpi_summary', 'column', 'id', 'bigint NOT NULL DEFAULT nextval(''kpi_summary_id_seq''::regclass) STORAGE PLAIN'),
    ('kpi_summary', 'column', 'client_id', 'bigint NOT NULL STORAGE PLAIN'),
    ('kpi_summary', 'column', 'source_id', 'bigint NULL STORAGE PLAIN'),
    ('kpi_summary', 'column', 'kpi_name', 'character varying(255) NOT NULL STORAGE EXTENDED'),
    ('kpi_summary', 'column', 'kpi_value', 'numeric NOT NULL STORAGE MAIN'),
    ('kpi_summary', 'column', 'period_start', 'timestamp with time zone NOT NULL STORAGE PLAIN'),
    ('kpi_summary', 'column', 'period_end', 'timestamp with time zone NOT NULL STORAGE PLAIN'),
    ('kpi_summary', 'column', 'calculated_at', 'timestamp with time zone NOT NULL DEFAULT now() STORAGE PLAIN'),
    ('kpi_summary', 'column', 'metadata', 'jsonb NULL STORAGE EXTENDED'),
    ('kpi_summary', 'index', 'idx_kpi_summary_client_id', 'btree (client_id)'),
    ('kpi_summary', 'index', 'idx_kpi_summary_client_kpi_period', 'btree (client_id, kpi_name, period_start)'),
    ('kpi_summary', 'index', 'idx_kpi_summary_kpi_name', 'btree (kpi_name)'),
    ('kpi_summary', 'index', 'idx_kpi_summary_period_start', 'btree (period_start)'),
    ('kpi_summary', 'index', 'idx_kpi_summary_source_id', 'btree (source_id)'),
    ('kpi_summary', 'constraint', 'pk_kpi_summary', 'PRIMARY KEY (id)'),
    ('kpi_summary', 'constraint', 'ck_kpi_summary_kpi_value_finite', 'CHECK (((kpi_value > ''-Infinity''::numeric) AND (kpi_value < ''Infinity''::numeric)))'),
    ('kpi_summary', 'constraint', 'ck_kpi_summary_period_order', 'CHECK ((period_end >= period_start))'),
    ('kpi_summary', 'constraint', 'fk_kpi_summary_source', 'FOREIGN KEY (client_id, source_id) REFERENCES data_sources(client_id, id) ON DELETE SET NULL (source_id)'),
    ('kpi_summary', 'sequence', 'kpi_summary_id_seq', 'AS bigint INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 NO CYCLE OWNED BY kpi_summary.id'),
    ('text_summary', 'table', 'text_summary', '10 columns'),
    ('text_summary', 'column', 'id', 'bigint NOT NULL DEFAULT nextval(''text_summary_id_seq''::regclass) STORAGE PLAIN'),
    ('text_summary', 'column', 'client_id', 'bigint NOT NULL STORAGE PLAIN'),
    ('text_summary', 'column', 'source_id', 'bigint NULL STORAGE PLAIN'),
    ('text_summary', 'column', 'text_field', 'text NOT NULL STORAGE EXTENDED'),
    ('text_summary', 'column', 'sentiment', 'character varying(50) NULL STORAGE EXTENDED'),
    ('text_summary', 'column', 'sentiment_score', 'double precision NULL STORAGE PLAIN'),
    ('text_summary', 'column', 'keywords', 'jsonb NULL STORAGE EXTENDED'),
    ('text_summary', 'column', 'embedding', 'vector(384) NULL STORAGE PLAIN'),
    ('text_summary', 'column', 'language', 'character varying(10) NOT NULL DEFAULT ''es''::character varying STORAGE EXTENDED'),
    ('text_summary', 'column', 'created_at', 'timestamp with time zone NOT NULL DEFAULT now() STORAGE PLAIN'),
    ('text_summary', 'index', 'idx_text_summary_client_id', 'btree (client_id)'),
    ('text_summary', 'index', 'idx_text_summary_created_at', 'btree (created_at)'),
    ('text_summary', 'index', 'idx_text_summary_embedding', 'ivfflat (embedding vector_cosine_ops) WITH (lists=''100'')'),
    ('text_summary', 'index', 'idx_text_summary_keywords', 'gin (keywords)'),
    ('text_summary', 'index', 'idx_text_summary_sentiment', 'btree (sentiment)'),
    ('text_summary', 'index', 'idx_text_summary_source_id', 'btree (source_id)'),
    ('text_summary', 'constraint', 'pk_text_summary', 'PRIMARY KEY (id)'),
    ('text_summary', 'constraint', 'fk_text_summary_source', 'FOREIGN KEY (client_id, source_id) REFERENCES data_sources(client_id, id) ON DELETE SET NULL (source_id)'),
    ('text_summary', 'sequence', 'text_summary_id_seq', 'AS bigint INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 NO CYCLE OWNED BY text_summary.id'),
    ('trend_signals', 'table', 'trend_signals', '10 columns'),
    ('trend_signals', 'column', 'id', 'bigint NOT NULL DEFAULT nextval(''trend_signals_id_seq''::regclass) STORAGE PLAIN'),
    ('trend_signals', 'column', 'sector', 'character varying(255) NOT NULL STORAGE EXTENDED'),
    ('trend_signals', 'column', 'term', 'character varying(255) NOT NULL STORAGE EXTENDED'),
    ('trend_signals', 'column', 'period_start', 'timestamp with time zone NOT NULL STORAGE PLAIN'),
    ('trend_signals', 'column', 'period_end', 'timestamp with time zone NOT NULL STORAGE PLAIN'),
    ('trend_signals', 'column', 'frequency', 'integer NOT NULL DEFAULT 0 STORAGE PLAIN'),
    ('trend_signals', 'column', 'delta_pct', 'double precision NULL STORAGE PLAIN'),
    ('trend_signals', 'column', 'status', 'trend_status NOT NULL DEFAULT ''stable''::trend_status STORAGE PLAIN'),
    ('trend_signals', 'column', 'metadata', 'jsonb NULL STORAGE EXTENDED'),
    ('trend_signals', 'column', 'created_at', 'timestamp with time zone NOT NULL DEFAULT now() STORAGE PLAIN'),
    ('trend_signals', 'index', 'idx_trend_signals_delta_pct', 'btree (delta_pct)'),
    ('trend_signals', 'index', 'idx_trend_signals_period', 'btree (period_start, period_end)'),
    ('trend_signals', 'index', 'idx_trend_signals_sector', 'btree (sector)'),
    ('trend_signals', 'index', 'idx_trend_signals_sector_term', 'btree (sector, term)'),
    ('trend_signals', 'index', 'idx_trend_signals_status', 'btree (status)'),
    ('trend_signals', 'index', 'idx_trend_signals_term', 'btree (term)'),
    ('trend_signals', 'constraint', 'pk_trend_signals', 'PRIMARY KEY (id)'),
    ('trend_signals', 'constraint', 'ck_trend_signals_frequency_not_negative', 'CHECK ((frequency >= 0))'),
    ('trend_signals', 'constraint', 'ck_trend_signals_period_order', 'CHECK ((period_end >= period_start))'),
    ('trend_signals', 'sequence', 'trend_signals_id_seq', 'AS bigint INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 NO CYCLE OWNED BY trend_signals.id')
),
tables AS (
  SELECT t.oid, relname AS name,
         CASE WHEN relispartition THEN 'partition' WHEN relkind = 'r' THEN 'table'
              WHEN relkind = 'p' THEN 'partitioned table' WHEN relkind = 'f' THEN 'foreign table'
              ELSE 'view' END AS kind,
         CASE relpersistence WHEN 'p' THEN 'permanent' WHEN 'u' THEN 'unlogged' ELSE 'temporary' END AS persistence,
         concat(CASE WHEN relrowsecurity THEN 'on' ELSE 'off' END,
                CASE WHEN relforcerowsecurity THEN ', forced' END) AS row_security,
         ARRAY(SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = t.oid ORDER BY 1) AS parents,
         ARRAY(SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = t.oid ORDER BY 1) AS children,
         obj_description(t.oid, 'pg_class') AS comment,
         ARRAY(SELECT privilege FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS privilege
               WHERE NOT has_any_column_privilege(t.oid, privilege))
         || CASE WHEN has_table_privilege(t.oid, 'DELETE') THEN ARRAY[]::text[] ELSE ARRAY['DELETE'] END AS missing
  FROM pg_class AS t JOIN pg_namespace AS n ON n.oid = relnamespace
  WHERE nspname = current_schema() AND relname = ANY (ARRAY(SELECT name FROM expected WHERE kind IN ('table', 'type'))) AND relkind IN ('r', 'p', 'f', 'v', 'm')
  ORDER BY relname
),
columns AS (
  SELECT attrelid AS table_oid, attname AS name, format_type(atttypid, atttypmod) AS type,
         CASE WHEN NOT attnotnull THEN 'NULL'
              WHEN EXISTS (SELECT FROM pg_constraint WHERE conrelid = attrelid AND contype = 'n'
                           AND conkey = ARRAY[attnum] AND NOT convalidated) THEN 'NOT NULL NOT VALID'
              ELSE 'NOT NULL' END AS nullability,
         CASE attstorage WHEN 'p' THEN 'PLAIN' WHEN 'm' THEN 'MAIN' WHEN 'e' THEN 'EXTERNAL'
              ELSE 'EXTENDED' END AS storage,
         CASE WHEN attidentity = 'a' THEN 'GENERATED ALWAYS AS IDENTITY'
              WHEN attidentity = 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY'
              WHEN attgenerated = 's' THEN format('GENERATED ALWAYS AS (%s) STORED', pg_get_expr(adbin, adrelid))
              WHEN attgenerated = 'v' THEN format('GENERATED ALWAYS AS (%s) VIRTUAL', pg_get_expr(adbin, adrelid))
              ELSE pg_get_expr(adbin, adrelid) END AS "default",
         CASE WHEN attcollation <> typcollation THEN attcollation::regcollation::text END AS collation,
         col_description(attrelid, attnum) AS comment
  FROM pg_attribute
  JOIN pg_type ON pg_type.oid = atttypid
  LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
  WHERE attrelid = ANY (ARRAY(SELECT oid FROM tables)) AND attnum > 0 AND NOT attisdropped
  ORDER BY attrelid, attnum
),
constraints AS (
  SELECT conrelid AS table_oid, conname AS name,
         concat(pg_get_constraintdef(c.oid),
                CASE WHEN contype IN ('p', 'u', 'x') AND NOT (indisvalid AND indisready) THEN ' INVALID' END)
         AS definition
  FROM pg_constraint AS c LEFT JOIN pg_index ON indexrelid = conindid
  WHERE conrelid = ANY (ARRAY(SELECT oid FROM tables)) AND contype IN ('p', 'u', 'x', 'f', 'c')
  ORDER BY array_position(ARRAY['p', 'u', 'x', 'c', 'f'], contype::text), conname
),
indexes AS (
  SELECT indrelid AS table_oid, relname AS name,
         concat(CASE WHEN indisunique THEN 'UNIQUE ' END, split_part(definition, ' USING ', 2),
                CASE WHEN NOT (indisvalid AND indisready) THEN ' INVALID' END) AS definition
  FROM pg_index
  JOIN pg_class ON pg_class.oid = indexrelid
  CROSS JOIN LATERAL pg_get_indexdef(indexrelid) AS definition
  WHERE indrelid = ANY (ARRAY(SELECT oid FROM tables))
    AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
  ORDER BY relname
),
sequences AS (
  WITH used AS (
    SELECT objid AS sequence, refobjid AS table_oid, refobjid::regclass || '.' || quote_ident(attname) AS owner
    FROM pg_depend JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
    WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
      AND refobjid = ANY (ARRAY(SELECT oid FROM tables))
    UNION ALL
    SELECT refobjid, adrelid, NULL
    FROM pg_attrdef JOIN pg_depend ON objid = pg_attrdef.oid
    WHERE classid = 'pg_attrdef'::regclass AND refclassid = 'pg_class'::regclass AND deptype = 'n'
      AND adrelid = ANY (ARRAY(SELECT oid FROM tables))
  )
  SELECT table_oid, relname AS name, has_sequence_privilege(seqrelid, 'USAGE, UPDATE') AS usable,
         concat(CASE WHEN relpersistence = 'u' THEN 'UNLOGGED ' END,
                format('AS %s INCREMENT BY %s MINVALUE %s MAXVALUE %s %s OWNED BY %s', seqtypid::regtype,
                       seqincrement, seqmin, seqmax, CASE WHEN seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END,
                       coalesce(max(owner), 'NONE'))) AS definition
  FROM used JOIN pg_sequence ON seqrelid = sequence JOIN pg_class ON pg_class.oid = seqrelid
  GROUP BY table_oid, relname, relpersistence, pg_sequence.seqrelid
  ORDER BY relname
),
types AS (
  SELECT t.oid::regtype::text AS name,
         ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder) AS labels
  FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = typnamespace
  WHERE typtype = 'e'
    AND (nspname = current_schema() AND typname = ANY (ARRAY(SELECT name FROM expected WHERE kind IN ('table', 'type')))
         OR t.oid IN (SELECT atttypid FROM pg_attribute WHERE attrelid = ANY (ARRAY(SELECT oid FROM tables)) AND attnum > 0))
  ORDER BY typname
),
parts AS (
  SELECT table_oid, 'column' AS kind, name,
    concat(type, ' COLLATE ' || "collation", ' ' || nullability, ' DEFAULT ' || "default", ' STORAGE ' || storage)
      AS definition
  FROM columns
  UNION ALL SELECT table_oid, 'constraint', name, definition FROM constraints
  UNION ALL SELECT table_oid, 'index', name, definition FROM indexes
  UNION ALL SELECT table_oid, 'sequence', name, definition FROM sequences
),
installed AS (
  SELECT tables.name::text AS relation, parts.kind, parts.name::text, definition
  FROM parts JOIN tables ON oid = table_oid
  UNION ALL
  SELECT name, 'table', name,
    concat((SELECT count(*) FROM columns WHERE table_oid = oid), ' columns',
      CASE WHEN persistence <> 'permanent' THEN ', ' || persistence END,
      CASE WHEN kind IN ('view', 'foreign table') THEN ', ' || kind END)
  FROM tables
  UNION ALL
  SELECT '', 'type', name, array_to_string(labels, ', ') FROM types
),
compared AS (
  SELECT relation, kind, name, expected.definition AS declared, installed.definition AS found,
    CASE
      WHEN installed.definition IS NULL THEN 'MISSING'
      WHEN expected.definition IS NULL THEN 'EXTRA'
      WHEN installed.definition = expected.definition THEN 'OK'
      -- A rebuild chooses the method, parameters and precision of the vector index by the number of rows.
      WHEN name = 'idx_text_summary_embedding' AND installed.definition ~ '^(ivfflat|hnsw) \((embedding vector_cosine_ops|\(\(embedding\)::halfvec\(384\)\) halfvec_cosine_ops)\)( WITH \([^()]*\))?$' THEN 'OK'
      ELSE 'DIFFERENT'
    END AS result
  FROM expected FULL JOIN installed USING (relation, kind, name)
  -- If the table is missing, or a view has its name, that is one row: its columns, indexes and so on are not listed.
  WHERE kind IN ('type', 'table')
    OR relation IN (SELECT name FROM tables WHERE tables.kind NOT IN ('view', 'foreign table'))
  UNION ALL
  SELECT '', 'extension', 'vector', 'CREATE EXTENSION vector;', extversion,
    CASE WHEN extversion IS NULL THEN 'MISSING' ELSE 'OK' END
  FROM (VALUES (1)) AS one_row LEFT JOIN pg_extension ON extname = 'vector'
  UNION ALL
  SELECT '', 'revision', '', '003', stamp,
    CASE WHEN stamp >= '003' THEN 'OK' WHEN stamp = '' THEN 'MISSING' ELSE 'DIFFERENT' END
  FROM (VALUES (:'revision')) AS version (stamp)
),
report AS (
  SELECT result,
    row_number() OVER (
      ORDER BY relation,
        array_position('{extension,revision,type,table,column,index,constraint,sequence}', kind), name
    ) AS position,
    format('%-10s %-14s %-11s %-40s ', result, relation, kind, CASE kind WHEN 'table' THEN '' ELSE name END)
      || CASE result WHEN 'MISSING' THEN 'expected: ' || declared ELSE found END
      || CASE result WHEN 'DIFFERENT' THEN format(E'\n%79sexpected: %s', '', declared) ELSE '' END AS line
  FROM compared
  WHERE kind <> 'column' OR result <> 'OK'
)
SELECT string_agg(line, E'\n' ORDER BY position) AS report,
  count(*) FILTER (WHERE result IN ('MISSING', 'DIFFERENT')) > 0 AS is_different,
  format('Analytics tables of schema %s in database %s', current_schema(), current_database()) AS title
FROM report \gset

\echo :title
\echo :report
\if :is_different
  DO $$
  BEGIN
    RAISE EXCEPTION 'the analytics tables do not match revision 003: see the rows MISSING and DIFFERENT above';
  END
  $$;
\endif
COMMIT;
\echo The analytics tables match revision 003.
