"""The parts of a schema, written the same on every server at the same revision.

Definitions are PostgreSQL's text without the schema name: `PRIMARY KEY (id)`, `btree (client_id)`. They end with the
state of an object that is not in force: `NOT VALID`, `NOT ENFORCED`, or `INVALID_SUFFIX` for an index.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rejection:
    """What can make an insert of the models fail; `kind` is columns, constraints or indexes.

    `part` is the name of a column, or a definition. `actions` of ALTER COLUMN prevent that a column rejects a row.
    """

    kind: str
    part: str
    actions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rejections:
    """What an application added that can reject rows of models that declare these columns."""

    declared_columns: tuple[str, ...]
    parts: tuple[Rejection, ...]


@dataclass(frozen=True)
class Column:
    """One column; `default` is also the clause of an identity or generated column; `collation` None is the type's."""

    type: str
    nullability: str
    storage: str
    default: str | None = None
    collation: str | None = None
    comment: str | None = None


@dataclass(frozen=True)
class Reference:
    """The columns of a foreign key, and what it refers to; `on_delete` is its `pg_constraint.confdeltype`."""

    columns: tuple[str, ...]
    table: str
    on_delete: str


@dataclass(frozen=True)
class Table:
    """One table and the objects that belong to it, by name.

    `attached_objects` are triggers, rules, policies and disabled foreign key triggers, by kind and name, such as
    `trigger set_updated_at`. `partition_key` is how a partitioned table is divided, such as `RANGE (period_start)`; its
    partitions are not tables of a schema. Manifests have no `references`, which are the installed foreign keys by
    definition, and no `rejections`; see `Rejections`.
    """

    kind: str = "table"
    persistence: str = "permanent"
    row_security: str = "off"
    parents: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    partition_key: str | None = None
    comment: str | None = None
    columns: dict[str, Column] = field(default_factory=dict)
    constraints: dict[str, str] = field(default_factory=dict)
    indexes: dict[str, str] = field(default_factory=dict)
    sequences: dict[str, str] = field(default_factory=dict)
    attached_objects: dict[str, str] = field(default_factory=dict)
    references: dict[str, Reference] = field(default_factory=dict, compare=False)
    rejections: tuple[Rejections, ...] = field(default=(), compare=False)

    @property
    def is_partitioned(self) -> bool:
        """Whether the rows are in partitions."""
        return self.partition_key is not None


@dataclass(frozen=True)
class Schema:
    """The labels of the ENUM types, in order, and the tables."""

    types: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
