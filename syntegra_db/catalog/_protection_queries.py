"""Queries on what separates the clients: policies, privileges, and what runs with the privileges of the owner."""

from __future__ import annotations

from syntegra_db.group_roles import REACHED
from syntegra_db.installed_policies import COLUMNS, LOOKUP_NAME, PARTITIONS
from syntegra_db.sql import SYSTEM_SCHEMA, catalog_query

# Run with the search_path `pg_catalog`.
POLICIES = catalog_query(f"""
    SELECT relname::text AS table_name, {COLUMNS},
           {LOOKUP_NAME.format(schema="CAST(:schema AS pg_catalog.text)")} AS lookup
    FROM pg_policy JOIN pg_class ON pg_class.oid = polrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = :schema AND relname = ANY (:tables)
    ORDER BY relname, polname
""")  # noqa: S608  constants

# `concerned` are PUBLIC, the group roles, and whatever their logins are or can be. `bypassing` see the rows of every
# client, so what runs with their privileges shows them.
CONCERNED = """{reached}, concerned (role) AS (
      SELECT 0::oid
      UNION
      SELECT oid FROM pg_roles WHERE rolname = ANY (:groups)
      UNION
      SELECT role FROM reached WHERE login IN (
        SELECT login FROM reached JOIN pg_roles ON oid = role WHERE rolname = ANY (:groups)
      )
    ), protected (relation, owner) AS (
      SELECT pg_class.oid, relowner FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
      WHERE nspname = :schema AND relname = ANY (:tables) AND relkind IN ('r', 'p')
    ), parts (relation, owner) AS (
      SELECT relation, owner FROM protected
      UNION
      SELECT pg_class.oid, relowner FROM protected CROSS JOIN LATERAL pg_partition_tree(relation) AS tree
        JOIN pg_class ON pg_class.oid = tree.relid
    ), bypassing (role) AS (
      SELECT oid FROM pg_roles AS creator
      WHERE rolsuper OR rolbypassrls OR EXISTS (SELECT FROM protected WHERE pg_has_role(creator.oid, owner, 'USAGE'))
         OR EXISTS (SELECT FROM pg_roles WHERE rolname = :admin AND pg_has_role(creator.oid, pg_roles.oid, 'USAGE'))
    )
""".replace("{reached}", REACHED)

# Those that keep policies of the table that they were.
PROTECTED_PARTITIONS = catalog_query(f"SELECT parts.relname::text {PARTITIONS} AND parts.relrowsecurity ORDER BY 1")

# An object without an access list has one row, without a grantee. `grantor` is NULL for the owner.
# A partition with row-level security was the table before, and keeps its policies and privileges.
PRIVILEGES = catalog_query(
    """{concerned}, objects AS (
      SELECT relname::text AS name, CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
             CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE '' END || format('%I.%I', nspname, relname) AS target,
             false AS is_partition, relrowsecurity AS has_policies, pg_class.oid AS relation, relowner AS owner,
             relacl AS privileges
      FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
      WHERE nspname = :schema AND relname = ANY (:relations) AND relkind IN ('r', 'p', 'S')
      UNION ALL
      SELECT relname::text, 'TABLE', format('%I.%I', nspname, relname), true, relrowsecurity, pg_class.oid, relowner,
             relacl
      FROM parts JOIN pg_class ON pg_class.oid = relation JOIN pg_namespace ON pg_namespace.oid = relnamespace
      WHERE relispartition
      UNION ALL
      SELECT proname::text, 'FUNCTION', format('FUNCTION %I.%I()', nspname, proname), false, false, NULL, proowner,
             coalesce(proacl, acldefault('f', proowner))
      FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
      WHERE nspname = :schema AND proname = :lookup AND pronargs = 0
      UNION ALL
      SELECT nspname::text, 'SCHEMA', format('SCHEMA %I', nspname), false, false, NULL, nspowner, nspacl
      FROM pg_namespace WHERE nspname = :schema
    )
    SELECT name, kind, target, is_partition, has_policies,
           CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE grantee_name END AS grantee, column_name,
           privilege_type AS privilege, is_grantable, grantor_name AS grantor
    FROM objects LEFT JOIN LATERAL (
      SELECT NULL AS column_name, grantee, privilege_type, is_grantable, grantor FROM aclexplode(privileges)
      UNION ALL
      SELECT attname::text, grantee, privilege_type, is_grantable, grantor
      FROM pg_attribute CROSS JOIN aclexplode(attacl) WHERE attrelid = relation AND NOT attisdropped
    ) AS granted ON grantee <> owner AND (kind = 'FUNCTION' OR name = :bindings OR grantee IN (
      SELECT role FROM concerned
    ))
      LEFT JOIN LATERAL (SELECT pg_get_userbyid(grantee)::text AS grantee_name,
                                CASE WHEN grantor <> owner THEN pg_get_userbyid(grantor)::text END AS grantor_name
      ) AS names ON true
    ORDER BY kind DESC, is_partition, name, grantee, privilege_type, column_name
""".replace("{concerned}", CONCERNED)
)

IS_MEMBER = catalog_query("SELECT bool_or(pg_has_role(oid, 'USAGE')) FROM pg_roles WHERE rolname = ANY (:groups)")

LOOKUP = catalog_query("""
    SELECT prosrc AS body, pg_get_userbyid(proowner)::text AS owner, prosecdef AS is_definer,
           provolatile::text AS volatility, proparallel::text AS parallel, proconfig AS settings,
           lanname::text AS language, prorettype::regtype::text AS type,
           (SELECT pg_get_userbyid(relowner)::text FROM pg_class
            WHERE relnamespace = pg_namespace.oid AND relname = :bindings) AS table_owner
    FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace JOIN pg_language ON pg_language.oid = prolang
    WHERE nspname = :schema AND proname = :lookup AND pronargs = 0
""")

# Views that read a table as their owner; materialized views, and views on those, that can be read.
VIEWS = catalog_query(
    """{concerned}, dependents (relation, is_table, is_copied) AS (
      SELECT relation, true, false FROM parts
      UNION
      SELECT pg_class.oid, false, is_copied OR relkind = 'm'
      FROM dependents JOIN pg_depend ON refobjid = relation AND refclassid = 'pg_class'::regclass
        JOIN pg_rewrite ON pg_rewrite.oid = objid AND classid = 'pg_rewrite'::regclass
        JOIN pg_class ON pg_class.oid = ev_class
      WHERE ev_class <> relation AND relkind IN ('v', 'm')
    ), direct (relation) AS (
      SELECT ev_class FROM parts JOIN pg_depend ON refobjid = relation AND refclassid = 'pg_class'::regclass
        JOIN pg_rewrite ON pg_rewrite.oid = objid AND classid = 'pg_rewrite'::regclass
    ), found AS (
      SELECT format('%I.%I', nspname, relname) AS target, relkind = 'm' AS is_materialized,
             bool_or(is_copied) AS is_copied, pg_get_userbyid(relowner)::text AS owner,
             EXISTS (SELECT FROM pg_options_to_table(reloptions)
                     WHERE option_name = 'security_invoker' AND CAST(option_value AS pg_catalog.bool)) AS is_invoker,
             EXISTS (SELECT FROM direct WHERE direct.relation = pg_class.oid) AS is_direct,
             ARRAY(
               SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
               FROM (
                 SELECT grantee FROM aclexplode(relacl)
                 UNION
                 SELECT grantee FROM pg_attribute CROSS JOIN aclexplode(attacl) WHERE attrelid = pg_class.oid
               ) AS granted
               WHERE grantee <> relowner AND grantee IN (SELECT role FROM concerned)
               ORDER BY 1
             ) AS readers
      FROM dependents JOIN pg_class ON pg_class.oid = relation JOIN pg_namespace ON pg_namespace.oid = relnamespace
      WHERE NOT is_table AND relowner IN (SELECT role FROM bypassing)
      GROUP BY pg_class.oid, nspname, relname, relkind, relowner, reloptions, relacl
    )
    SELECT target, owner, readers, is_copied, is_direct AND NOT is_materialized AS is_view FROM found
    WHERE NOT is_invoker AND (is_direct AND NOT is_materialized OR is_copied AND cardinality(readers) > 0)
    ORDER BY target
""".replace("{concerned}", CONCERNED)
)

# The names in a body are found as words; a name that the body puts together is not.
DEFINER_FUNCTIONS = catalog_query(
    """{concerned}
    SELECT format('%I.%I(%s)', nspname, proname, pg_get_function_identity_arguments(pg_proc.oid)) AS target,
           pg_get_userbyid(proowner)::text AS owner
    FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
    WHERE prosecdef AND NOT nspname ~ '{system_schema}'
      AND NOT (nspname = :schema AND proname = :lookup AND pronargs = 0)
      AND proowner IN (SELECT role FROM bypassing)
      AND (prosrc ~ :words OR EXISTS (
        SELECT FROM pg_depend JOIN parts ON relation = refobjid
        WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND refclassid = 'pg_class'::regclass
      ))
      AND NOT EXISTS (SELECT FROM pg_depend
                      WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e')
      AND EXISTS (
        SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner)))
        WHERE grantee <> proowner AND grantee IN (SELECT role FROM concerned)
      )
    ORDER BY 1
""".replace("{concerned}", CONCERNED).replace("{system_schema}", SYSTEM_SCHEMA)
)

# Of the roles that create tables in migrations: the owners of these, and superusers.
DEFAULT_PRIVILEGES = catalog_query(
    """{concerned}
    SELECT pg_get_userbyid(defaclrole)::text AS creator, nspname::text AS schema,
           CASE defaclobjtype WHEN 'S' THEN 'SEQUENCES' ELSE 'TABLES' END AS kind,
           CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS grantee,
           string_agg(privilege_type, ', ' ORDER BY privilege_type) AS privileges
    FROM pg_default_acl LEFT JOIN pg_namespace ON pg_namespace.oid = defaclnamespace
      JOIN pg_roles AS creator ON creator.oid = defaclrole CROSS JOIN aclexplode(defaclacl)
    WHERE defaclobjtype IN ('r', 'S') AND (defaclnamespace = 0::oid OR nspname = :schema)
      AND (rolsuper OR EXISTS (SELECT FROM protected WHERE owner = defaclrole))
      AND grantee <> defaclrole AND grantee IN (SELECT role FROM concerned)
    GROUP BY defaclrole, nspname, defaclobjtype, grantee
    ORDER BY 1, 2, 3, 4
""".replace("{concerned}", CONCERNED)
)
