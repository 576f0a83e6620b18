"""The tables of a database with separated clients, as the manifests declare them: without the policies of `tenancy`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from syntegra_db.client_policies import POLICIES, read_tenancy
from syntegra_db.client_setting import CLIENT_COLUMN, LOOKUP_FUNCTION
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syntegra_db.catalog._schema import Schema, Table
    from syntegra_db.client_policies import GroupRoles


def without_client_policies(connection: Connection, installed: Schema) -> None:
    """Remove the policies that `tenancy enable` makes from the tables of `installed` that have all of them.

    A table that has only some of them, or others, keeps them all, and so differs from the declared one.
    """
    tenancy = read_tenancy(connection)
    if tenancy is None:
        return
    for name, table in installed.tables.items():
        declared = _declared(tenancy.roles, name)
        if (
            CLIENT_COLUMN in table.columns
            and table.row_security == "on"
            and declared.items() <= table.attached_objects.items()
        ):
            installed.tables[name] = _stripped(table, declared)


def _stripped(table: Table, declared: dict[str, str]) -> Table:
    kept = {label: text for label, text in table.attached_objects.items() if label not in declared}
    return replace(table, row_security="off", attached_objects=kept)


def _declared(roles: GroupRoles, table: str) -> dict[str, str]:
    """Return the definitions of the policies, as `introspect` reads them."""
    definitions = {}
    for policy in POLICIES:
        names = ", ".join(quote(name) for name in sorted(getattr(roles, key) for key in policy.roles))
        # The schema of the tables is on the search_path.
        using = f" USING ({policy.using.format(lookup=LOOKUP_FUNCTION)})" if policy.using else ""
        check = f" WITH CHECK ({policy.check})" if policy.check else ""
        definitions[f"policy {policy.name}"] = (
            f"CREATE POLICY {policy.name} ON {quote(table)} AS PERMISSIVE FOR {policy.command} TO {names}{using}{check}"
        )
    return definitions
