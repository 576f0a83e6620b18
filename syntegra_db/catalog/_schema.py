"""What a database is made of, in words that are the same on every server that holds the same revision.

Definitions are PostgreSQL's own text without a schema: `PRIMARY KEY (id)`, `btree (client_id)`. What a server adds to
say that something is there and not in force ends them: `NOT VALID`, `NOT ENFORCED`, and `INVALID_SUFFIX` for an index.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Column:
    """One column; `default` also tells an identity or a generated column, `collation` is None for the type's own."""

    type: str
    nullability: str
    storage: str
    default: str | None = None
    collation: str | None = None
    comment: str | None = None


@dataclass(frozen=True)
class Table:
    """One table with everything that hangs on it, by name.

    `attached_objects` are what acts on rows unasked: triggers, rules and policies, by kind and name such as
    `trigger set_updated_at`, and the triggers of foreign keys that are disabled.
    """

    kind: str = "table"
    persistence: str = "permanent"
    row_security: str = "off"
    parents: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    comment: str | None = None
    columns: dict[str, Column] = field(default_factory=dict)
    constraints: dict[str, str] = field(default_factory=dict)
    indexes: dict[str, str] = field(default_factory=dict)
    sequences: dict[str, str] = field(default_factory=dict)
    attached_objects: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Schema:
    """The tables and the labels of the ENUM types, in their order."""

    types: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)


def schema_from_dict(types: dict[str, list[str]], tables: dict[str, dict[str, Any]]) -> Schema:
    """Return the shape that nested dictionaries, such as a manifest's, describe."""
    return Schema(
        types={name: tuple(labels) for name, labels in types.items()},
        tables={name: _table_from(**attributes) for name, attributes in tables.items()},
    )


def _table_from(columns: dict[str, dict[str, str]], **attributes: Any) -> Table:
    return Table(columns={name: Column(**column) for name, column in columns.items()}, **attributes)
