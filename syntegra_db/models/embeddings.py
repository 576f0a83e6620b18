"""The declared embeddings: their columns, dimensions and vector indexes, as the models declare them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import inspect

from syntegra_db.models.base import Base
from syntegra_db.models.text_summary import TextSummary
from syntegra_db.models.types import Embedding

if TYPE_CHECKING:
    from sqlalchemy import Index
    from sqlalchemy.orm import ColumnProperty, InstrumentedAttribute, Mapper

Method = Literal["ivfflat", "hnsw"]
METHODS: tuple[Method, ...] = ("ivfflat", "hnsw")
# PostgreSQL cuts longer names.
MAX_NAME_LENGTH = 63


@dataclass(frozen=True, eq=False)
class EmbeddingColumn:
    """A declared column with embeddings.

    `attribute` is its name in `model`, which differs from `name` if the name is not usable in Python. `index` is the
    name of its vector index, `method` the one that the models declare, or `ivfflat`.
    """

    model: type[Any]
    attribute: str
    table: str
    name: str
    dimensions: int
    index: str
    method: Method

    def __str__(self) -> str:
        return f"{self.table}.{self.name}"

    @cached_property
    def new_index(self) -> str:
        """The name of the index that a rebuild builds, until it takes the place of the current one."""
        return self._rebuild_name("new")

    @cached_property
    def old_index(self) -> str:
        """The name of the previous index during a rebuild, until it is dropped."""
        return self._rebuild_name("old")

    @property
    def index_names(self) -> tuple[str, str, str]:
        """The names that exist during a rebuild."""
        return self.index, self.new_index, self.old_index

    @property
    def sql(self) -> InstrumentedAttribute[Any]:
        """The column in statements."""
        attribute: InstrumentedAttribute[Any] = getattr(self.model, self.attribute)
        return attribute

    @cached_property
    def type(self) -> Embedding:
        """The type that checks and converts values of this column."""
        declared = self.sql.type
        return declared if isinstance(declared, Embedding) else Embedding(self.dimensions)

    def _rebuild_name(self, suffix: str) -> str:
        """Return a name that no declared index has: a column named embedding_new has one that ends in `_new`."""
        declared = {str(index.name) for table in Base.metadata.tables.values() for index in table.indexes}
        endings = (f"_{'rebuild_' * number}{suffix}" for number in count())
        names = (self.index[: MAX_NAME_LENGTH - len(ending)] + ending for ending in endings)
        return next(name for name in names if name not in declared)


def declared_embeddings() -> tuple[EmbeddingColumn, ...]:
    """Return the embeddings of all models: those of `text_summary` first, each table's in the order of its columns."""
    return embeddings_of(*Base.registry.mappers)


def text_embeddings() -> tuple[EmbeddingColumn, ...]:
    """Return the embeddings of `text_summary`, in the order of its columns; a subclass of the model can add some."""
    return embeddings_of(*inspect(TextSummary).self_and_descendants)


def embeddings_of(*mappers: Mapper[Any]) -> tuple[EmbeddingColumn, ...]:
    """Return the embeddings of models, each column once, as that of its base class."""
    found: dict[tuple[str, str], EmbeddingColumn] = {}
    for mapper in sorted(mappers, key=_order):
        for attribute in mapper.column_attrs:
            if _dimensions(attribute):
                model: Any = mapper.class_
                embedding = _embedding(model, attribute.key)
                found.setdefault((embedding.table, embedding.name), embedding)
    return tuple(found.values())


def _order(mapper: Mapper[Any]) -> tuple[bool, int, str]:
    return not issubclass(mapper.class_, TextSummary), len(mapper.class_.__mro__), mapper.class_.__name__


def _dimensions(attribute: ColumnProperty[Any]) -> int | None:
    declared = attribute.columns[0].type
    kind = declared.impl_instance if isinstance(declared, Embedding) else declared
    return kind.dim if isinstance(kind, VECTOR) else None


# One object for each column, by which statements are cached.
@cache
def _embedding(model: type[Any], name: str) -> EmbeddingColumn:
    attribute = inspect(model).column_attrs[name]
    column = attribute.columns[0]
    table: Any = column.table
    index = next((index for index in table.indexes if _indexes_vectors(index, column.name)), None)
    return EmbeddingColumn(
        model=model,
        attribute=name,
        table=table.name,
        name=column.name,
        dimensions=_dimensions(attribute) or 0,
        index=f"idx_{table.name}_{column.name}" if index is None else str(index.name),
        method="ivfflat" if index is None else index.dialect_options["postgresql"]["using"],
    )


def _indexes_vectors(index: Index, column: str) -> bool:
    """Return whether `index` is a vector index on `column`, or on its conversion to half precision."""
    if index.dialect_options["postgresql"]["using"] not in METHODS:
        return False
    return any(re.search(rf"\b{re.escape(column)}\b", str(expression)) for expression in index.expressions)
