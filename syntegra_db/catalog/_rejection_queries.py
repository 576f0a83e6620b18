"""Catalog queries for what can reject an insert; with the search_path `CATALOG_ONLY`, names are complete."""

from __future__ import annotations

from syntegra_db.sql import catalog_query

# `expression` is the default or the expression of a generated column; `domain` are the CHECKs of the type, as text and
# tree, and `domain_is_required` is its NOT NULL.
COLUMNS = catalog_query("""
    SELECT attrelid AS table_oid, attname AS name, attnum AS number, attnotnull AS is_required,
           attidentity::text AS identity, attgenerated::text AS generated,
           pg_get_expr(coalesce(adbin, typdefaultbin), coalesce(adrelid, 0)) AS expression,
           coalesce(adbin, typdefaultbin)::text AS tree, attcollation <> typcollation AS has_collation,
           seqcycle AS cycles, base_type, domain_is_required, domain_texts, domain_trees
    FROM pg_attribute
    JOIN pg_type AS t ON t.oid = atttypid
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    LEFT JOIN (pg_depend JOIN pg_sequence ON seqrelid = objid)
      ON classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype = 'i'
         AND refobjid = attrelid AND refobjsubid = attnum
    CROSS JOIN LATERAL (
      WITH RECURSIVE chain AS (
        SELECT t.oid, t.typtype, t.typbasetype, t.typnotnull, atttypmod AS modifier
        UNION ALL
        SELECT base.oid, base.typtype, base.typbasetype, base.typnotnull, own.typtypmod
        FROM chain JOIN pg_type AS own ON own.oid = chain.oid JOIN pg_type AS base ON base.oid = chain.typbasetype
        WHERE chain.typtype = 'd'
      )
      SELECT (SELECT format_type(oid, modifier) FROM chain WHERE typtype <> 'd') AS base_type,
             (SELECT bool_or(typnotnull AND typtype = 'd') FROM chain) AS domain_is_required,
             ARRAY(SELECT pg_get_expr(conbin, 0) FROM pg_constraint JOIN chain ON contypid = chain.oid
                   WHERE contype = 'c' ORDER BY pg_constraint.oid) AS domain_texts,
             ARRAY(SELECT conbin::text FROM pg_constraint JOIN chain ON contypid = chain.oid
                   WHERE contype = 'c' ORDER BY pg_constraint.oid) AS domain_trees
    ) AS types
    WHERE attrelid = ANY (CAST(:tables AS oid[])) AND attnum > 0 AND NOT attisdropped
    ORDER BY attrelid, attnum
""")

# `columns` are those of a foreign key. PostgreSQL 18 has constraints that are not enforced.
CONSTRAINTS = catalog_query("""
    SELECT conrelid AS table_oid, conname AS name, contype::text AS type, pg_get_expr(conbin, conrelid) AS expression,
           conbin::text AS tree, confmatchtype = 'f' AS matches_full,
           (SELECT relname::text FROM pg_class WHERE oid = confrelid) AS target,
           ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = conrelid AND attnum = ANY (conkey)) AS columns
    FROM pg_constraint AS c
    WHERE conrelid = ANY (CAST(:tables AS oid[])) AND contype IN ('c', 'f')
      AND coalesce(CAST(jsonb_extract_path_text(to_jsonb(c), 'conenforced') AS boolean), true)
""")

# Also the indexes of constraints. A key is a column, or an expression in parentheses.
INDEXES = catalog_query("""
    SELECT indrelid AS table_oid, relname AS name, indisprimary AS is_primary, indisunique AS is_unique,
           indisexclusion AS is_exclusion,
           indnullsnotdistinct AS nulls_are_equal, indexprs::text AS tree,
           pg_get_expr(indpred, indrelid) AS condition, indpred::text AS condition_tree,
           EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
           AS is_constraint,
           ARRAY(SELECT pg_get_indexdef(indexrelid, key, false) FROM generate_series(1, indnkeyatts) AS key) AS keys,
           -- Of an exclusion constraint, the columns that are compared by the equality of bigint.
           ARRAY(SELECT attname::text FROM pg_constraint CROSS JOIN generate_series(1, indnkeyatts) AS key
                 JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[key - 1]
                 WHERE conindid = indexrelid AND contype = 'x'
                   AND conexclop[key] = CAST('=(bigint,bigint)' AS regoperator)) AS equal_columns,
           ARRAY(SELECT (SELECT attname::text FROM pg_attribute WHERE attrelid = indrelid AND attnum = indkey[key - 1]
                         AND attnum > 0)
                 FROM generate_series(1, indnkeyatts) AS key) AS columns
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indrelid = ANY (CAST(:tables AS oid[]))
""")
