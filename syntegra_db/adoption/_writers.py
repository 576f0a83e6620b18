"""What programs that write rows must give after the adoption and need not give before it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from syntegra_db.adoption._model import WriterRequirement
from syntegra_db.catalog.conversions import INTEGERS, LENGTH, STRINGS, base_type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.adoption._inspection import Inspection
    from syntegra_db.catalog import Column

NULLABLE = "NULL"
NAMES = re.compile(r"\w+")
CAST = re.compile(r"::[a-z]\w*(?: [a-z]\w*)*(?:\(\d+\))?(?:\[\])?")
STRICTER_CONSTRAINTS = ("CHECK", "FOREIGN KEY")


def writer_requirements(inspection: Inspection) -> Iterator[WriterRequirement]:
    """Yield what becomes required, by table and column, and then the constraints that are added."""
    for table, declared, installed in inspection.tables():
        for name, column in declared.columns.items():
            existing = installed.columns.get(name)
            requirements = [
                *_value_requirements(column, existing),
                *(_type_requirement(inspection, column, existing) if existing else ()),
            ]
            if name != "id":
                yield from (WriterRequirement(f"{table}.{name}", requirement) for requirement in requirements)
        new_optional = {
            name
            for name, column in declared.columns.items()
            if column.nullability == NULLABLE and name not in installed.columns
        }
        for definition in declared.constraints.values():
            is_new = definition.startswith(STRICTER_CONSTRAINTS) and definition not in installed.constraints.values()
            # NULL meets a CHECK and a foreign key.
            if is_new and not new_optional & set(NAMES.findall(definition)):
                yield WriterRequirement(table, f"rows that meet {definition}")


def _value_requirements(column: Column, existing: Column | None) -> Iterator[str]:
    """Yield what changes for an insert without the column or with NULL."""
    was, becomes = _plain_default(existing), _plain_default(column)
    is_required = column.nullability != NULLABLE
    was_optional = existing is None or existing.nullability == NULLABLE
    if is_required and becomes is None:
        if was_optional or was is not None:
            yield "a value, because it is NOT NULL and has no default"
        return
    if is_required and was_optional and existing is not None:
        yield f"no NULL; without a value it gets {becomes}"
    if was not in {None, becomes}:
        yield f"a value if it must be {was}, because the default becomes {becomes or NULLABLE}"


def _plain_default(column: Column | None) -> str | None:
    """Return a default without casts, which differ between types."""
    if column is None or column.default is None:
        return None
    return CAST.sub("", column.default.replace("CURRENT_TIMESTAMP", "now()"))


def _type_requirement(inspection: Inspection, column: Column, existing: Column) -> Iterator[str]:
    """Yield what values must be if the new type accepts fewer than the old one, or others."""
    old, new = base_type(existing.type), base_type(column.type)
    declared, installed = inspection.declared.types, inspection.installed.types
    if column.type in declared:
        labels = declared[column.type]
        if not set(installed.get(existing.type, ("",))) <= set(labels):
            yield f"one of {', '.join(labels)}"
    elif old in STRINGS and new in STRINGS:
        limit, old_limit = (LENGTH.search(kind) for kind in (column.type, existing.type))
        if limit and (old_limit is None or int(limit[1]) < int(old_limit[1])):
            yield f"at most {limit[1]} characters"
    else:
        is_same = existing.type == column.type or (old == new and not LENGTH.search(column.type))
        is_wider = new in {"numeric", "double precision"} or INTEGERS.get(old, 4) <= INTEGERS.get(new, 0)
        if not is_same and not is_wider:
            yield f"{column.type} instead of {existing.type}"
