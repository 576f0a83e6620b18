"""Render docs/schema.md, the data dictionary, from the models and the revisions."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from paracelsus.transformers.mermaid import Mermaid
from sqlalchemy import Column, Enum, Index, MetaData, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from syntegra_db.models import Base
from syntegra_db.models.exact_types import ExactType
from tools import revision_docs
from tools.sections import markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Mapper
    from sqlalchemy.types import TypeEngine

DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy
TABLES = sorted(Base.metadata.tables.values(), key=lambda table: table.name)
INTRODUCTION = """\
# The schema

Generated from `syntegra_db.models` and the revisions by `make generate`: change a model, not this file. The server
stores the same comments; `\\d+` shows them in psql.
"""


def render() -> str:
    """Return the whole page: the diagram, the revisions, the ENUM types, and the tables by name."""
    models = {mapper.local_table: mapper for mapper in Base.registry.mappers}
    tables = (table_section(table, models[table]) for table in TABLES)
    drawn = f"## Diagram\n\n```mermaid\n{diagram()}\n```\n"
    return "\n".join((INTRODUCTION, drawn, f"## Revisions\n\n{revision_docs.table()}", enum_section(), *tables))


def diagram() -> str:
    """Return the ER diagram of paracelsus with corrected relationships.

    Paracelsus draws a composite foreign key once per column, and an optional foreign key as required.
    """
    metadata = MetaData()
    for table in TABLES:
        for column in table.to_metadata(metadata).columns:
            column.type = declared_type(column)
    mermaid = Mermaid(metadata, column_sort="preserve-order", omit_comments=True, max_enum_members=sys.maxsize)
    boxes = [line for line in str(mermaid).splitlines() if "--" not in line]
    return "\n".join([*boxes, *relationships()]).strip()


def relationships() -> Iterator[str]:
    """Yield each foreign key as a line of a Mermaid ER diagram."""
    for table in TABLES:
        for key in sorted(table.foreign_key_constraints, key=lambda key: str(key.name)):
            parent = "|o" if any(column.nullable for column in key.columns) else "||"
            columns = ", ".join(key.columns.keys())
            yield f'  {key.referred_table.name} {parent}--o{{ {table.name} : "{columns}"'


def enum_section() -> str:
    """Return the ENUM types with their labels in sort order."""
    declared = [declared_type(column) for table in TABLES for column in table.columns]
    types = {str(kind.name): kind.enums for kind in declared if isinstance(kind, Enum)}
    rows = ((code(name), ", ".join(map(code, labels))) for name, labels in sorted(types.items()))
    return f"## ENUM types\n\n{markdown_table(('Type', 'Labels, in ascending order'), rows)}"


def declared_type(column: Column[object]) -> TypeEngine[Any]:
    """Return the type of SQLAlchemy that the type of `column` wraps."""
    return column.type.impl_instance if isinstance(column.type, ExactType) else column.type


def table_section(table: Table, model: Mapper[object]) -> str:
    """Return the section of a table: its comment, columns, constraints and indexes."""
    columns = (column_row(column, model) for column in table.columns)
    indexes = sorted((code(str(index.name)), code(index_definition(index, table))) for index in table.indexes)
    return "\n".join(
        (
            f"## {table.name}\n\n{table.comment}. Model: {code(f'syntegra_db.models.{model.class_.__name__}')}.\n",
            markdown_table(("Column", "Type", "Null", "Default", "Meaning"), columns),
            markdown_table(("Key or CHECK", "Definition"), constraint_rows(table)),
            markdown_table(("Index", "Method and columns"), indexes),
        )
    )


def column_row(column: Column[object], model: Mapper[object]) -> tuple[str, ...]:
    """Return the cells of a column."""
    attribute = model.get_property_by_column(column).key
    python = "" if attribute == column.name else f" (in Python: {code(attribute)})"
    null = "yes" if column.nullable else "no"
    return code(column.name), column.type.compile(DIALECT).lower(), null, default(column), f"{column.comment}{python}"


def default(column: Column[object]) -> str:
    """Return the value that a column gets when an INSERT omits it."""
    if column is column.table.autoincrement_column:
        return code(f"nextval('{column.table.name}_{column.name}_seq')")
    text = DIALECT.ddl_compiler(DIALECT, CreateTable(column.table)).get_column_default_string(column)
    if text is None:
        return ""
    return code(text) + ("; the models set it on update" if column.onupdate is not None else "")


def constraint_rows(table: Table) -> Iterator[tuple[str, str]]:
    """Yield the name and definition of each key and CHECK, by name."""
    compiler = DIALECT.ddl_compiler(DIALECT, CreateTable(table))
    for constraint in sorted(table.constraints, key=lambda constraint: str(constraint.name)):
        definition = compiler.process(constraint).removeprefix(f"CONSTRAINT {constraint.name} ")
        yield code(str(constraint.name)), code(definition)


def index_definition(index: Index, table: Table) -> str:
    """Return the method and columns of an index, such as `gin (keywords)`."""
    before, _, definition = str(CreateIndex(index).compile(dialect=DIALECT)).partition(f" ON {table.name} ")
    unique = "UNIQUE " if " UNIQUE " in before else ""
    method = "" if definition.startswith("USING ") else "btree "
    return f"{unique}{method}{definition.removeprefix('USING ')}"


def code(text: str) -> str:
    """Return `text` as code for a table cell: a `|` is escaped, because it would end the cell."""
    return "`" + text.replace("|", "\\|") + "`"
