-- Changes that need PostgreSQL 18; older versions reject the statements.

-- column, required but for old rows => column clusters.centroid
ALTER TABLE clusters ADD CONSTRAINT later NOT NULL centroid NOT VALID;

-- column, required no longer of old rows => column clusters.client_id
ALTER TABLE clusters ALTER client_id DROP NOT NULL,
  ADD CONSTRAINT later NOT NULL client_id NOT VALID;

-- column, generated when read => column anomaly_log.deviation
ALTER TABLE anomaly_log DROP deviation,
  ADD deviation double precision GENERATED ALWAYS AS (value - expected_value) VIRTUAL;

-- constraint, foreign key not enforced => constraint fk_kpi_summary_source on kpi_summary
ALTER TABLE kpi_summary ALTER CONSTRAINT fk_kpi_summary_source NOT ENFORCED;

-- constraint, check not enforced => constraint ck_clusters_silhouette_range on clusters
ALTER TABLE clusters DROP CONSTRAINT ck_clusters_silhouette_range,
  ADD CONSTRAINT ck_clusters_silhouette_range CHECK (silhouette_score BETWEEN -1 AND 1) NOT ENFORCED;
