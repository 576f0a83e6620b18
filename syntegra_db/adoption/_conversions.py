"""Conversions between column types that keep every value, and SQL of the values as text before and after.

`{}` in SQL is the placeholder of the column. The session's time zone must be that of the naive timestamps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from syntegra_db.sql import literal, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INTEGERS = {"smallint": 1, "integer": 2, "bigint": 3}
INTEGER_LIMITS = {"smallint": 2**15, "integer": 2**31}
STRINGS = {"character varying", "text", "character"}
FLOATS = {"real", "double precision"}
# The largest integer up to which all integers are exact in double precision.
EXACT_INTEGER = 2**53
LARGEST_DOUBLE = "1e300"
LENGTH = re.compile(r"\((\d+)\)")
PLAIN = "({})::text"
VECTOR_TEXT = "encode(vector_send({}), 'hex')"
UTC_ZONES = ("UTC", "Etc/UTC", "GMT", "Etc/GMT", "Etc/UCT", "UCT", "Zulu")


@dataclass(frozen=True)
class Conversion:
    """How the values of one type are converted to another.

    `using` is None for PostgreSQL's assignment cast; `convertible` is true for values that can be converted, None if
    all can. `before` and `after` return the same text for the same value. `preserves_foreign_keys` is true if a foreign
    key to a column of the old type remains valid.
    """

    using: str | None = None
    convertible: str | None = None
    before: str = PLAIN
    after: str = PLAIN
    rewrites: bool = True
    preserves_foreign_keys: bool = False
    unconvertible_label: str = "values that do not fit the type"


def find_conversion(
    found: str, expected: str, labels: Mapping[str, tuple[str, ...]], timezone: str
) -> Conversion | None:
    """Return the conversion from `found` to `expected`, or None if no conversion keeps every value.

    `labels` are the labels of each ENUM type by name, for declared types the declared labels.
    """
    old, new = _base(found), _base(expected)
    if expected in labels:
        return _to_enum(expected, labels[expected]) if old in STRINGS or found in labels else None
    if new in STRINGS:
        return _to_string(old, _length(found), new, _length(expected)) if old in STRINGS else None
    makers: dict[str, Callable[[], Conversion | None]] = {
        "jsonb": partial(_to_jsonb, found),
        "vector": partial(_to_vector, found, expected),
        "timestamp with time zone": partial(_to_timestamptz, old, timezone),
        "numeric": partial(_to_number, old, new),
        "double precision": partial(_to_number, old, new),
        **dict.fromkeys(INTEGERS, partial(_to_integer, old, new)),
    }
    maker = makers.get(new)
    return maker() if maker else None


def _base(name: str) -> str:
    return re.sub(r"\([\d,]+\)", "", name)


def _length(name: str) -> int | None:
    found = LENGTH.search(name)
    return int(found[1]) if found else None


def _to_enum(name: str, labels: tuple[str, ...]) -> Conversion:
    listed = ", ".join(literal(label) for label in labels)
    return Conversion(
        using=f"({{}})::text::{quote(name)}",
        convertible=f"({{}})::text = ANY (ARRAY[{listed}])",
        unconvertible_label=f"values that are none of {', '.join(labels)}",
    )


def _to_string(old: str, old_length: int | None, new: str, length: int | None) -> Conversion:
    padded = old == "character"
    always_fits = length is None or (old_length is not None and old_length <= length)
    return Conversion(
        using=f"({{}})::text::{new}" if padded else None,
        convertible=None if always_fits else f"char_length({{}}) <= {length}",
        rewrites=padded or not always_fits,
        preserves_foreign_keys=not padded,
        unconvertible_label=f"values longer than {length} characters",
    )


def _to_integer(old: str, new: str) -> Conversion | None:
    if old not in INTEGERS:
        return None
    limit = INTEGER_LIMITS.get(new)
    widens = INTEGERS[old] < INTEGERS[new]
    return Conversion(
        convertible=None if widens or limit is None else f"{{}} BETWEEN {-limit} AND {limit - 1}",
        preserves_foreign_keys=True,
        unconvertible_label=f"values out of the range of {new}",
    )


def _to_number(old: str, new: str) -> Conversion | None:
    """Return the conversion through the decimal digits of the text form, which keeps all of them."""
    if old in INTEGERS and new == "numeric":
        return Conversion()
    if old in INTEGERS:
        convertible = f"abs(({{}})::numeric) <= {EXACT_INTEGER}" if old == "bigint" else None
        return Conversion(
            convertible=convertible,
            after="({})::bigint::text",
            unconvertible_label="values that double precision cannot represent",
        )
    if old == new:
        return Conversion(rewrites=False)
    if old in FLOATS:
        return Conversion(using=f"({{}})::text::{new}", after=f"({{}})::{old}::text")
    if old == "numeric":
        back = "trim_scale(({})::double precision::text::numeric)"
        return Conversion(
            using="({})::text::double precision",
            convertible=f"CASE WHEN abs({{}}) < {LARGEST_DOUBLE} THEN {back} = trim_scale({{}}) "
            "ELSE {} IN ('NaN', 'Infinity', '-Infinity') END",
            before="trim_scale({})::text",
            after="trim_scale(({})::text::numeric)::text",
            unconvertible_label="values with more digits than double precision can represent",
        )
    return None


def _to_timestamptz(old: str, timezone: str) -> Conversion | None:
    if old == "timestamp with time zone":
        return Conversion(rewrites=False)
    if old not in {"timestamp without time zone", "date"}:
        return None
    return Conversion(
        convertible="({})::timestamptz::timestamp = ({})::timestamp",
        before="({})::timestamptz::text",
        rewrites=old == "date" or timezone not in UTC_ZONES,
        unconvertible_label=f"timestamps that do not exist in {timezone}",
    )


def _to_jsonb(found: str) -> Conversion | None:
    if found == "json":
        return Conversion(
            using="({})::jsonb",
            convertible="position('\\u0000' in ({})::text) = 0",
            before="({})::jsonb::text",
            unconvertible_label="values that jsonb cannot store",
        )
    if found.endswith("[]") and _base(found.removesuffix("[]")) in STRINGS:
        return Conversion(using="to_jsonb({})", before="to_jsonb({})::text")
    if _base(found) in STRINGS:
        # pg_input_is_valid is available since PostgreSQL 16; before, the conversion itself reports the value.
        return Conversion(
            using="({})::jsonb",
            convertible="pg_input_is_valid(({})::text, 'jsonb')",
            before="({})::jsonb::text",
            unconvertible_label="values that are not valid JSON",
        )
    return None


def _to_vector(found: str, expected: str) -> Conversion | None:
    dimensions = _length(expected)
    label = f"vectors without {dimensions} dimensions"
    if _base(found) == "vector":
        convertible = f"vector_dims({{}}) = {dimensions}"
        return Conversion(convertible=convertible, before=VECTOR_TEXT, after=VECTOR_TEXT, unconvertible_label=label)
    if found == "real[]":
        return Conversion(
            using=f"({{}})::vector({dimensions})",
            convertible=f"cardinality({{}}) = {dimensions} AND array_ndims({{}}) = 1 AND array_position({{}}, NULL) "
            f"IS NULL",
            before=VECTOR_TEXT.replace("{}", "({})::vector"),
            after=VECTOR_TEXT,
            unconvertible_label=label,
        )
    return None
