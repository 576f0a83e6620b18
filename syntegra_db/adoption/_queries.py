"""Catalog queries of adoption, for what the introspection of the catalog package does not read."""

from __future__ import annotations

from sqlalchemy import text

from syntegra_db.sql import RELATION_KIND

# Objects that keep PostgreSQL from changing a column's type: all dependents except indexes, constraints, sequences and
# the column's own default.
DEPENDENTS = text(f"""
    SELECT DISTINCT refobjid::regclass::text AS table, attname AS column,
           CASE WHEN c.oid IS NULL THEN pg_describe_object(classid, objid, 0)
                ELSE concat({RELATION_KIND.format(relkind="relkind")}, ' ', c.oid::regclass) END AS dependent
    FROM pg_depend
    JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
    LEFT JOIN pg_rewrite ON classid = 'pg_rewrite'::regclass AND pg_rewrite.oid = objid
    LEFT JOIN pg_class AS c ON c.oid = ev_class
    LEFT JOIN pg_attrdef AS d ON classid = 'pg_attrdef'::regclass AND d.oid = objid
    WHERE refclassid = 'pg_class'::regclass AND refobjid = ANY (CAST(:tables AS regclass[])) AND refobjsubid > 0
      AND classid NOT IN ('pg_class'::regclass, 'pg_constraint'::regclass, 'pg_statistic_ext'::regclass)
      AND (d.oid IS NULL OR adnum <> refobjsubid)
    ORDER BY 1, 2, 3
""")  # noqa: S608  a constant

CHECKS_AND_FOREIGN_KEYS = text("""
    SELECT conrelid::regclass::text AS table, conname AS name, contype::text AS type,
           nullif(confrelid, 0)::regclass::text AS target, pg_get_constraintdef(oid) AS definition,
           ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = conrelid AND attnum = ANY (conkey) ORDER BY 1)
           AS columns,
           ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = confrelid AND attnum = ANY (confkey))
           AS target_columns
    FROM pg_constraint
    WHERE contype IN ('c', 'f') AND conparentid = 0
      AND (conrelid = ANY (CAST(:tables AS regclass[])) OR confrelid = ANY (CAST(:tables AS regclass[])))
    ORDER BY 1, 2
""")

OWNERS = text("""
    SELECT relname AS table, current_user AS role, pg_get_userbyid(relowner) AS owner
    FROM pg_class
    WHERE oid = ANY (CAST(:tables AS regclass[])) AND NOT pg_has_role(relowner, 'USAGE')
    ORDER BY relname
""")

SCHEMA = text("""
    SELECT current_schema() AS schema, current_user AS role,
           has_schema_privilege(current_schema(), 'CREATE') AS may_create
""")

# Columns of other tables that use one of the managed ENUM types.
TYPE_USERS = text("""
    SELECT t.typname::text AS type, attrelid::regclass::text || '.' || attname AS column
    FROM pg_attribute JOIN pg_type AS t ON t.oid = atttypid OR t.typarray = atttypid
    JOIN pg_class ON pg_class.oid = attrelid
    WHERE t.typname = ANY (:types) AND typnamespace = to_regnamespace(quote_ident(current_schema()))
      AND NOT attisdropped AND relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
      AND attrelid <> ALL (CAST(:tables AS regclass[]))
    ORDER BY 1, 2
""")

# Sequences that several columns use.
SHARED_SEQUENCES = text("""
    SELECT relname::text
    FROM pg_depend JOIN pg_class ON pg_class.oid = refobjid AND relkind = 'S'
    WHERE classid = 'pg_attrdef'::regclass AND refclassid = 'pg_class'::regclass
      AND relnamespace = to_regnamespace(quote_ident(current_schema()))
    GROUP BY refobjid, relname HAVING count(*) > 1
""")

SEQUENCE_EXISTS = text("""
    SELECT EXISTS (SELECT FROM pg_class
                   WHERE relkind = 'S' AND relname = :name
                     AND relnamespace = to_regnamespace(quote_ident(current_schema())))
""")

SIZE = text("SELECT pg_total_relation_size(CAST(:table AS regclass))")

VECTOR_AVAILABLE = text("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector')")

SERVER_VERSION = text("SELECT current_setting('server_version_num')::int")

SET_TIMEZONE = text("SELECT set_config('TimeZone', :zone, true)")

# Tables of the application that are locked too if a foreign key between them and the managed tables is recreated.
RELATED_TABLES = text("""
    SELECT DISTINCT other::regclass::text
    FROM pg_constraint CROSS JOIN LATERAL unnest(ARRAY[conrelid, confrelid]) AS other
    WHERE contype = 'f' AND conparentid = 0
      AND (conrelid = ANY (CAST(:tables AS regclass[])) OR confrelid = ANY (CAST(:tables AS regclass[])))
      AND other <> ALL (CAST(:tables AS regclass[])) AND has_table_privilege(other, 'UPDATE, DELETE, TRUNCATE')
    ORDER BY 1
""")

EXTERNAL_FOREIGN_KEYS = text("""
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE contype = 'f' AND conparentid = 0
      AND (conrelid::regclass::text = ANY (:managed)) <> (confrelid::regclass::text = ANY (:managed))
    ORDER BY 1, 2
""")
