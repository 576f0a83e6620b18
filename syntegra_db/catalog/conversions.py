"""Conversions between column types that keep every value, and SQL of the values as text before and after.

`{}` in SQL is the placeholder of the column. The session's time zone must be that of the naive timestamps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from syntegra_db.sql import BIGINT, literal, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INTEGERS = {"smallint": 1, "integer": 2, "bigint": 3}
INTEGER_LIMITS = {"smallint": 2**15, "integer": 2**31}
STRINGS = {"character varying", "text", "character"}
FLOATS = {"real", "double precision"}
# The nearest double of larger values is infinity, so their text is rejected as out of range.
LARGEST_ROUNDED_TO_DOUBLE = "1.797693134862315807e308"
# Text of smaller values is rejected as out of range.
SMALLEST_DOUBLE = "1e-323"
JSON_STRING = r'"(?:[^"\\]|\\.)*"'
# The text between the colons that end a key, to compare the number of keys.
BETWEEN_KEYS = JSON_STRING + '|[^":]+'
NEGATIVE_ZERO = r"(?<![eE])-0(?:\.0+)?(?![.0-9])"
# jsonb writes an exponent as zeros, and Python reads no integer of more than 4,300 digits.
MANY_ZEROS = 1000
LARGE_EXPONENT = r"[eE]\+?0*[1-9][0-9]{3}"
ROUNDS = "rounds them"
COLON_ESCAPE = r"\u003"
LENGTH = re.compile(r"\((\d+)\)")
PLAIN = "({})::text"
VECTOR_TEXT = "encode(vector_send({}), 'hex')"
# The extension may not be installed yet.
ARRAY_TEXT = "array_to_string(({})::real[], ' ')"
IS_NEGATIVE_ZERO = "({})::text = '-0'"
UTC_ZONES = ("UTC", "Etc/UTC", "GMT", "Etc/GMT", "Etc/UCT", "UCT", "Zulu")


@dataclass(frozen=True)
class Loss:
    """What a conversion changes in the values for which `condition` is true, and what accepting it does to them.

    `before` replaces the text of the conversion that would differ; None if none does.
    """

    condition: str
    label: str
    effect: str
    before: str | None = None


@dataclass(frozen=True)
class Conversion:
    """How the values of one type are converted to another.

    `using` is None for PostgreSQL's assignment cast. `convertible` is true for values that can be converted, and false
    or an error for others; it is None if all can. `loss` is None if every converted value is the same value. `before`
    and `after` return the same text for the same value. `preserves_foreign_keys` is true if a foreign key to a column
    of the old type remains valid.
    """

    using: str | None = None
    convertible: str | None = None
    before: str = PLAIN
    after: str = PLAIN
    rewrites: bool = True
    preserves_foreign_keys: bool = False
    unconvertible_label: str = "values that do not fit the type"
    loss: Loss | None = None


def find_conversion(
    found: str, expected: str, labels: Mapping[str, tuple[str, ...]], timezone: str
) -> Conversion | None:
    """Return the conversion from `found` to `expected`, or None if no conversion keeps every value.

    `labels` are the labels of each ENUM type by name, for declared types the declared labels.
    """
    old, new = base_type(found), base_type(expected)
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


def base_type(name: str) -> str:
    """Return the name of a type without its length or precision."""
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
    limit = INTEGER_LIMITS.get(new)
    # A column of type bigint identifies something, so its values are never rounded.
    if limit is not None and (old == "numeric" or old in FLOATS):
        number = "({})::text::numeric"
        return Conversion(
            using=f"round({number})::{new}",
            convertible=f"round({number}) BETWEEN {-limit} AND {limit - 1}",
            before=f"trim_scale({number})::text",
            unconvertible_label=f"values out of the range of {new}",
            loss=Loss(
                f"{number} <> trunc({number}) OR {IS_NEGATIVE_ZERO}",
                "values that are not whole, or -0",
                ROUNDS,
                f"round({number})::text",
            ),
        )
    if old not in INTEGERS:
        return None
    widens = INTEGERS[old] < INTEGERS[new]
    return Conversion(
        convertible=None if widens or limit is None else f"{{}} BETWEEN {-limit} AND {limit - 1}",
        preserves_foreign_keys=True,
        unconvertible_label=f"values out of the range of {new}",
    )


def _to_number(old: str, new: str) -> Conversion | None:
    """Return the conversion through the decimal digits of the text form, which keeps all of them."""
    if old == new:
        return Conversion(rewrites=False)
    if old in FLOATS:
        return Conversion(
            using=f"({{}})::text::{new}",
            after=f"({{}})::{old}::text",
            loss=Loss(IS_NEGATIVE_ZERO, "values of -0", "stores them as 0", f"({{}})::text::numeric::{old}::text")
            if new == "numeric"
            else None,
        )
    if old in INTEGERS and new == "numeric":
        return Conversion()
    if old != "numeric" and old not in INTEGERS:
        return None
    number = "({})::numeric"
    using = f"CASE WHEN abs({number}) < {SMALLEST_DOUBLE} THEN 0 ELSE ({{}})::text::double precision END"
    digits = "trim_scale(({})::text::numeric)::text"
    rounded_digits = digits.replace("{}", using)
    # The text of a double has at most 17 digits, although a whole number with more can be exact.
    is_exact = (
        f"CASE WHEN NOT abs({number}) <= {BIGINT.stop} THEN false WHEN ({using}) >= {BIGINT.stop} THEN false "
        f"ELSE ({using})::bigint = {number} END"
    )
    return Conversion(
        using=using,
        convertible=f"abs({number}) <= {LARGEST_ROUNDED_TO_DOUBLE} OR {number} IN ('NaN', 'Infinity', '-Infinity')",
        before=f"CASE WHEN {is_exact} THEN {rounded_digits} ELSE {digits} END",
        after=digits,
        unconvertible_label="values out of the range of double precision",
        loss=Loss(
            condition=f"({using})::text::numeric <> {number} AND NOT {is_exact}",
            label="values with more digits than double precision can represent",
            effect=ROUNDS,
            before=rounded_digits,
        ),
    )


def _to_timestamptz(old: str, timezone: str) -> Conversion | None:
    if old == "timestamp with time zone":
        return Conversion(rewrites=False)
    if old not in {"timestamp without time zone", "date"}:
        return None
    return Conversion(
        convertible="({})::timestamptz::timestamp = ({})::timestamp",
        before="({})::timestamptz::text",
        rewrites=old == "date" or timezone not in UTC_ZONES,
        unconvertible_label=f"timestamps that do not exist in {timezone} or are out of range",
    )


def _to_jsonb(found: str) -> Conversion | None:
    if found.endswith("[]") and base_type(found.removesuffix("[]")) in STRINGS:
        return Conversion(using="to_jsonb({})", before="to_jsonb({})::text")
    if found != "json" and base_type(found) not in STRINGS:
        return None
    using = "({})::jsonb"
    value, text = "({})::text", f"{using}::text"
    has_many_zeros = f"strpos({text}, repeat('0', {MANY_ZEROS})) > 0"
    has_large_exponent = _matches_outside_strings(value, LARGE_EXPONENT, has_many_zeros)
    has_negative_zero = _matches_outside_strings(value, NEGATIVE_ZERO, f"strpos({value}, '-0') > 0")
    return Conversion(
        using=using,
        convertible=f"{text} <> '' AND NOT {has_large_exponent}",
        before=text,
        unconvertible_label="values that jsonb cannot store, or stores as numbers of thousands of digits",
        loss=Loss(
            condition=f"{_has_fewer_keys(text, value)} OR {has_negative_zero}",
            label="objects with duplicate keys, or the number -0",
            effect="keeps the last value of each key and stores -0 as 0",
        ),
    )


def _matches_outside_strings(value: str, pattern: str, precondition: str) -> str:
    """Return SQL for whether `pattern` matches the JSON `value` outside its strings; `precondition` is faster."""
    outside = f"regexp_replace({value}, {literal(JSON_STRING)}, '', 'g')"
    matches = f"~ {literal(pattern)}"
    return f"CASE WHEN {precondition} AND {value} {matches} THEN {outside} {matches} ELSE false END"


def _has_fewer_keys(text: str, other: str) -> str:
    """Return SQL for whether the JSON `text` has another number of keys than the JSON `other`."""
    # Counting all colons is fast. Strings have the same ones, except escaped colons.
    colons, keys = (
        " <> ".join(count.replace("{}", value) for value in (text, other))
        for count in (
            "length({}) - length(replace({}, ':', ''))",
            f"length(regexp_replace({{}}, {literal(BETWEEN_KEYS)}, '', 'g'))",
        )
    )
    return f"CASE WHEN {colons} OR strpos({other}, {literal(COLON_ESCAPE)}) > 0 THEN {keys} ELSE false END"


def _to_vector(found: str, expected: str) -> Conversion | None:
    dimensions = _length(expected)
    if base_type(found) == "vector":
        return Conversion(
            convertible=f"vector_dims({{}}) = {dimensions}",
            before=VECTOR_TEXT,
            after=VECTOR_TEXT,
            unconvertible_label=f"vectors without {dimensions} dimensions",
        )
    if found == "real[]":
        return Conversion(
            using=f"({{}})::vector({dimensions})",
            convertible=f"cardinality({{}}) = {dimensions} AND array_ndims({{}}) = 1 AND array_position({{}}, NULL) "
            "IS NULL AND NOT {} && ARRAY['NaN', 'Infinity', '-Infinity']::real[]",
            before=ARRAY_TEXT,
            after=ARRAY_TEXT,
            unconvertible_label=f"arrays that are not {dimensions} finite numbers",
        )
    return None
