"""SQL of the backup package."""

from __future__ import annotations

from sqlalchemy import text

EXPORT_SNAPSHOT = text("""
    SELECT current_database() AS database, now() AS taken_at,
           current_setting('server_version') AS server_version, pg_export_snapshot() AS snapshot
""")

LAST_ID = text("SELECT pg_sequence_last_value(CAST(pg_get_serial_sequence(:table, 'id') AS regclass))")

# A transaction keeps the statistics that it read first, until it clears them.
CLEAR_STATS_SNAPSHOT = text("SELECT pg_stat_clear_snapshot()")

DUMPED_ROWS = text("""
    SELECT relname, tuples_processed
    FROM pg_stat_progress_copy JOIN pg_stat_activity USING (pid) JOIN pg_class ON pg_class.oid = relid
    WHERE application_name = :application
""")

COLUMNS = text("""
    SELECT attname, format_type(atttypid, atttypmod) AS type
    FROM pg_attribute WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped
""")

# What detaches the child tables, whose rows pg_dump of their parents does not save.
DETACH_CHILD_TABLES = text("""
    SELECT pg_catalog.format(
             CASE WHEN relispartition THEN 'ALTER TABLE %1$s DETACH PARTITION %2$s;'
                  ELSE 'ALTER TABLE %2$s NO INHERIT %1$s;' END,
             CAST(inhparent AS pg_catalog.regclass), CAST(inhrelid AS pg_catalog.regclass))
    FROM pg_catalog.pg_inherits JOIN pg_catalog.pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = ANY (CAST(:tables AS pg_catalog.regclass[])) AND (:with_partitions OR NOT relispartition)
    ORDER BY 1
""")

# The tables with the rows of partitioned ones; a foreign table, or one in another schema, is not in a backup.
PARTITIONS = text("""
    SELECT named.relname AS table_name, part.relname AS name,
           part.relkind = 'r' AND part.relnamespace = named.relnamespace AS is_ordinary,
           pg_catalog.format('ALTER TABLE %s DETACH PARTITION %s;', inhparent::pg_catalog.regclass,
                             part.oid::pg_catalog.regclass) AS detach
    FROM pg_catalog.unnest(CAST(:tables AS pg_catalog.regclass[])) AS tables (oid)
    JOIN pg_catalog.pg_class AS named ON named.oid = tables.oid
    LEFT JOIN LATERAL pg_catalog.pg_partition_tree(named.oid) AS tree ON isleaf AND named.relkind = 'p'
    LEFT JOIN pg_catalog.pg_class AS part ON part.oid = tree.relid AND part.oid <> named.oid
    LEFT JOIN pg_catalog.pg_inherits ON inhrelid = part.oid
    WHERE named.relkind = 'p'
    ORDER BY named.relname, part.relname
""")

# The first column of a vector index has as many dimensions as its vectors, also if it is an expression.
VECTOR_INDEXES = text("""
    SELECT relname AS name, pg_get_indexdef(pg_class.oid) AS definition,
           (SELECT atttypmod FROM pg_attribute WHERE attrelid = indexrelid AND attnum = 1) AS dimensions
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
    WHERE amname IN ('ivfflat', 'hnsw') AND indrelid = CAST(:table AS regclass)
      AND (CAST(:columns AS text[]) IS NULL
           OR EXISTS (SELECT FROM pg_depend JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
                      WHERE classid = 'pg_class'::regclass AND objid = indexrelid
                        AND refclassid = 'pg_class'::regclass AND refobjid = indrelid
                        AND attname = ANY (CAST(:columns AS text[]))))
    ORDER BY relname
""")

# Never backwards, because a rollback does not undo setval(): an id that was used once is never used again.
ADVANCE_SEQUENCE = text("""
    SELECT setval(sequence, :last_id) FROM CAST(pg_get_serial_sequence(:table, 'id') AS regclass) AS sequence
    WHERE :last_id > coalesce(pg_sequence_last_value(sequence), 0)
""")

RAISE_BUILD_MEMORY = text("""
    SELECT set_config('maintenance_work_mem', concat(:bytes / 1024, 'kB'), true)
    WHERE pg_size_bytes(current_setting('maintenance_work_mem')) < :bytes
""")
