"""Values that a narrower type rejects or changes, as the server stores them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from syntegra_db.catalog._narrowing import narrowing_condition

if TYPE_CHECKING:
    from support.servers import Database

LABELS = {"low_high": ("low", "high"), "low_only": ("low",)}
WIDENED = [
    ("character varying(10)", "character varying(20)"),
    ("character varying(10)", "text"),
    ("low_high", "text"),
    ("jsonb", "text"),
    ("smallint", "bigint"),
    ("integer", "double precision"),
    ("real", "double precision"),
    ("bigint", "numeric"),
    ("numeric(10,2)", "numeric(12,4)"),
    ("date", "timestamp with time zone"),
    ("timestamp(0) with time zone", "timestamp with time zone"),
    ("vector(3)", "vector"),
    ("halfvec(3)", "vector(3)"),
]
# Values, NULL included, and how many of them are lost.
NARROWED = [
    ("character varying(20)", "character varying(10)", ["", "1234567890", "äöüäöüäöüäö", " " * 11], 2),
    ("text", "character varying(3)", ["abc", "abcd"], 1),
    ("integer", "character varying(3)", ["-99", "-100"], 1),
    ("low_high", "character varying(3)", ["low", "high"], 1),
    ("low_high", "low_only", ["low", "high"], 1),
    ("text", "low_only", ["low", "high"], 1),
    ("bigint", "integer", ["2147483647", "2147483648", "-2147483649"], 2),
    ("bigint", "smallint", ["0", "40000"], 1),
    ("double precision", "integer", ["1", "1.5", "1e20", "NaN", "Infinity"], 4),
    ("numeric", "bigint", ["1", "2.5"], 2),
    ("double precision", "real", ["0", "0.5", "0.1", "1e300", "1e-300", "NaN", "Infinity"], 3),
    ("double precision", "numeric", ["0.5", "0.30000000000000004", "Infinity"], 1),
    ("numeric", "double precision", ["0.5", "12345678901234567890", "1e400", "NaN", "-Infinity"], 2),
    ("numeric", "numeric(4,2)", ["0.5", "99.99", "99.999", "0.125", "100", "NaN", "Infinity"], 4),
    ("numeric(10,4)", "numeric(10,2)", ["999999.9999", "1.25", "1.2501"], 2),
    ("double precision", "numeric(4,1)", ["0.5", "0.25", "1e300"], 2),
    ("timestamp with time zone", "date", ["2024-01-01 00:00", "2024-01-01 10:00", "infinity"], 1),
    ("timestamp with time zone", "timestamp(0) with time zone", ["2024-01-01 10:00:00.5", "2024-01-01 10:00"], 1),
    ("timestamp without time zone", "date", ["2024-01-01", "2024-01-01 10:00"], 1),
    ("vector(3)", "vector(2)", ["[1,2,3]"], 1),
    ("vector(3)", "halfvec(3)", ["[1,2,3]"], 1),
    ("text", "jsonb", ["{}", "x"], 2),
    ("jsonb", "integer", ["1"], 1),
]


@pytest.mark.parametrize(("old", "new"), WIDENED)
def test_wider_type_loses_no_value(old: str, new: str) -> None:
    assert narrowing_condition(old, new, LABELS) is None
    assert narrowing_condition(old, old, LABELS) is None


def test_narrower_type_loses_values_that_do_not_fit(database: Database) -> None:
    database.execute("CREATE TYPE low_high AS ENUM ('low', 'high'); CREATE TYPE low_only AS ENUM ('low')")
    counted = {}
    with database.connect() as connection:
        for old, new, values, _ in NARROWED:
            condition = narrowing_condition(old, new, LABELS)
            assert condition is not None, (old, new)
            values_of_type = sql.SQL("SELECT value::{} FROM unnest({}::text[]) AS v(value)").format(
                sql.SQL(old), sql.Literal([*values, None])
            )
            query = sql.SQL("SELECT count(*) FROM ({}) AS rows WHERE {}").format(
                values_of_type, sql.SQL(condition.replace("{}", "value"))
            )
            counted[old, new] = connection.execute(query).fetchall()[0][0]
    assert counted == {(old, new): lost for old, new, _, lost in NARROWED}
