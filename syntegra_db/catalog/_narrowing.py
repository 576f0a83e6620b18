"""Which values of a column a narrower type rejects or changes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from syntegra_db.catalog.conversions import FLOATS, INTEGERS, LENGTH, STRINGS, base_type, find_conversion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from syntegra_db.catalog.conversions import Conversion

ANY_VALUE = "{} IS NOT NULL"
VECTORS = {"vector", "halfvec"}
NUMBERS = {*INTEGERS, *FLOATS, "numeric"}
LIMITED_NUMERIC = re.compile(r"numeric\((\d+),(-?\d+)\)")
# A cast of other numbers fails, or makes them 0.
FLOAT_RANGES = {"real": "BETWEEN 1.5e-45 AND 3.4e38", "double precision": "BETWEEN 1e-300 AND 1e300"}
# The types that store each value of a type.
WIDER_TYPES = {
    "date": {"timestamp without time zone", "timestamp with time zone"},
    "timestamp without time zone": {"timestamp without time zone"},
    "timestamp with time zone": {"timestamp with time zone"},
    "smallint": {"real", "double precision"},
    "integer": {"double precision"},
    "real": {"double precision"},
}


def narrowing_condition(old: str, new: str, labels: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return the SQL condition for values, as `{}`, of the type `old` that a cast to `new` rejects or changes.

    None means that each value stays the same. A condition does not fail for any value of `old`. `labels` are those of
    each ENUM type by name.
    """
    old_base, new_base = base_type(old), base_type(new)
    if old == new or new in WIDER_TYPES.get(old_base, ()):
        return None
    if old_base in VECTORS and new_base in VECTORS:
        return _vector_condition(old, new)
    if old_base in NUMBERS and new_base in {*FLOATS, "numeric"}:
        return _number_condition(old, new)
    limit = LENGTH.search(new)
    if new_base in STRINGS and old_base not in STRINGS:
        return f"char_length(({{}})::text) > {limit[1]}" if limit else None
    if {old_base, new_base} <= {"date", "timestamp without time zone", "timestamp with time zone"}:
        return f"({{}})::{new}::{old} <> {{}}"
    # Whether text is JSON can only be tried.
    conversion = None if new_base == "jsonb" else find_conversion(old, new, labels, "UTC")
    return ANY_VALUE if conversion is None else _conversion_condition(conversion)


def _conversion_condition(conversion: Conversion) -> str | None:
    changed = conversion.loss.condition if conversion.loss else None
    if conversion.convertible is None:
        return changed
    return f"{ANY_VALUE} AND CASE WHEN {conversion.convertible} THEN {changed or 'false'} ELSE true END"


def _vector_condition(old: str, new: str) -> str | None:
    if base_type(old) == "vector" and base_type(new) == "halfvec":
        return ANY_VALUE
    limit, old_limit = LENGTH.search(new), LENGTH.search(old)
    if limit is None or (old_limit is not None and old_limit[1] == limit[1]):
        return None
    return f"vector_dims({{}}) <> {limit[1]}"


def _number_condition(old: str, new: str) -> str | None:
    """Return the condition for numbers that are another number after a cast to `new` and back."""
    number, back = "({})::numeric", f"::{base_type(old)}"
    if new in FLOAT_RANGES:
        return (
            f"CASE WHEN abs({number}) {FLOAT_RANGES[new]} THEN ({{}})::{new}{back} <> {{}} "
            f"ELSE {number} NOT IN (0, 'NaN', 'Infinity', '-Infinity') END"
        )
    limits = LIMITED_NUMERIC.fullmatch(new)
    if limits is None:
        return f"{number}{back} <> {{}}" if old in FLOATS else None
    precision, scale = map(int, limits.groups())
    installed = LIMITED_NUMERIC.fullmatch(old)
    if installed is not None:
        old_precision, old_scale = map(int, installed.groups())
        if old_scale <= scale and old_precision - old_scale <= precision - scale:
            return None
    rounded = f"round({number}, {scale})"
    return f"CASE WHEN abs({rounded}) < 1e{precision - scale} THEN {rounded}{back} <> {{}} ELSE {number} <> 'NaN' END"
