"""Compare Alembic's version table, which no manifest contains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog._findings import Finding
from syntegra_db.revisions import VERSION_TABLE
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def compare_owner(owners: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a note if the version table has another owner than all other tables of `owners`."""
    others = [owner for name, owner in owners.items() if name != VERSION_TABLE]
    owner = owners.get(VERSION_TABLE)
    if owner and others and owner not in others:
        yield Finding(
            object=f"owner of {VERSION_TABLE}",
            expected=f"{quote(others[0])}, the owner of the other tables",
            found=quote(owner),
            impact="A migration by the owner of the other tables cannot write the revision.",
            fix=f"ALTER TABLE {VERSION_TABLE} OWNER TO {quote(others[0])};",
            is_drift=False,
        )
