"""What an application with its own Alembic revisions in the same database gives Alembic: its objects, and no others."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import Table

from syntegra_db.catalog import managed_tables, managed_types
from syntegra_db.client_policies import BINDINGS_TABLE
from syntegra_db.recorded_steps import STEP_TABLE
from syntegra_db.revisions import VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.sql.schema import SchemaItem

# Of a table that is partitioned by month: its months, all rows before, and rows of other months.
PARTITION_SUFFIX = r"_(\d{4}_\d{2}|past|default)"
TYPE_KINDS = frozenset({"enum", "type"})


def include_name(name: str | None, kind: str, parent_names: Mapping[str, str | None]) -> bool:  # noqa: ARG001  Alembic's signature
    """Return whether an installed object may be the application's, for `include_name` of Alembic's `configure`.

    It is False for the tables, their partitions, the version table and the types of this package, in every schema.
    `kind` is the kind of object as Alembic names it, `parent_names` the schema and the table that the object is in;
    of an object in a table, Alembic asks only if the table is included. For a plugin that compares ENUM types, `kind`
    is "enum" or "type".
    """
    if name is None:
        return True
    if kind == "table":
        return _own_tables().fullmatch(name) is None
    return kind not in TYPE_KINDS or name not in managed_types()


def include_object(
    item: SchemaItem,
    name: str | None,
    kind: str,
    is_installed: bool,  # noqa: ARG001, FBT001  Alembic's signature
    counterpart: SchemaItem | None,  # noqa: ARG001  Alembic's signature
) -> bool:
    """Return whether an object may be the application's, for `include_object` of Alembic's `configure`.

    It is False for the tables of this package and everything in them, also where the application's MetaData contains
    them, because its models have the same base class. A foreign key from them to a table of the application is part of
    them, so the application creates it in a revision by hand.
    """
    table = item if isinstance(item, Table) else getattr(item, "table", None)
    return include_name(table.name if isinstance(table, Table) else name, "table" if table is not None else kind, {})


@cache
def _own_tables() -> re.Pattern[str]:
    tables = "|".join(map(re.escape, managed_tables()))
    others = "|".join(map(re.escape, (VERSION_TABLE, STEP_TABLE, BINDINGS_TABLE)))
    return re.compile(rf"({tables})({PARTITION_SUFFIX})?|{others}")
