    SELECT format('trigger %I is on it', tgname) FROM pg_trigger WHERE tgrelid = target AND NOT tgisinternal
    UNION
    SELECT format('rule %I is on it', rulename) FROM pg_rewrite WHERE ev_class = target
    UNION
    SELECT format('policy %I is on it', polname) FROM pg_policy
    WHERE polrelid = target AND NOT (polname = ANY (ARRAY[{policies}]) AND {is_separated})
    UNION
    SELECT format('publication %I has it', pubname)
    FROM pg_publication_rel JOIN pg_publication ON pg_publication.oid = prpubid WHERE prrelid = target
    UNION
    SELECT format('row-level security is on it: ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;',
      target)
    FROM pg_class WHERE oid = target AND (relrowsecurity AND NOT {is_separated} OR relforcerowsecurity)
