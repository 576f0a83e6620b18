"""Policies as they are installed and as the server would print the declared ones, to compare both."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy import Row

    from syntegra_db.client_policies import Policy, Tenancy

# The columns of a query on `pg_policy` for `InstalledPolicy.of`. With the search_path `pg_catalog`, expressions name
# the schemas of their functions; `{lookup}` is then the function that the expressions of bound logins call.
COLUMNS = """polname::text AS name, polpermissive AS is_permissive,
           CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
                ELSE 'ALL' END AS command,
           ARRAY(SELECT coalesce(rolname::text, '') FROM unnest(polroles) AS role LEFT JOIN pg_roles ON oid = role
                 ORDER BY 1) AS roles,
           pg_get_expr(polqual, polrelid) AS using_rows, pg_get_expr(polwithcheck, polrelid) AS check_rows"""
LOOKUP_NAME = "quote_ident({schema}) || '.' || quote_ident(CAST(:lookup AS pg_catalog.text))"

# The partitions `parts` of the tables `:tables` that are in the same schema.
PARTITIONS = """FROM pg_class AS parents JOIN pg_namespace ON pg_namespace.oid = parents.relnamespace
      CROSS JOIN LATERAL pg_partition_tree(parents.oid) AS tree JOIN pg_class AS parts ON parts.oid = tree.relid
    WHERE nspname = :schema AND parents.relname = ANY (:tables) AND parents.relkind = 'p'
      AND parts.relispartition AND parts.relnamespace = parents.relnamespace"""


class InstalledPolicy(NamedTuple):
    """A policy as the server prints it; the role PUBLIC is empty."""

    name: str
    is_permissive: bool
    command: str
    roles: frozenset[str]
    using: str | None
    check: str | None

    @classmethod
    def of(cls, row: Row[Any]) -> InstalledPolicy:
        """Return the policy of a row with `COLUMNS`."""
        return cls(row.name, row.is_permissive, row.command, frozenset(row.roles), row.using_rows, row.check_rows)

    def __str__(self) -> str:
        kind = "PERMISSIVE" if self.is_permissive else "RESTRICTIVE"
        using = f" USING ({self.using})" if self.using else ""
        check = f" WITH CHECK ({self.check})" if self.check else ""
        roles = ", ".join(sorted(role or "PUBLIC" for role in self.roles))
        return f"{kind} FOR {self.command} TO {roles}{using}{check}"


def declared_policy(policy: Policy, tenancy: Tenancy, lookup: str) -> InstalledPolicy:
    """Return how the server prints a declared policy; `lookup` is the name of the function, as it prints that."""
    roles = frozenset(getattr(tenancy.roles, role) for role in policy.roles)
    using = policy.using and policy.using.format(lookup=lookup)
    return InstalledPolicy(policy.name, True, policy.command, roles, using, policy.check)
