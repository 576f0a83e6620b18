"""Keys that an application added to a managed table, and whether they can reject an insert of the models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from syntegra_db.sql import quote_name

if TYPE_CHECKING:
    from syntegra_db.catalog._schema import Table

CHANGED_CASE = re.compile(r"(?:lower|upper)\((?:\((?P<cast>.+)\)::text|(?P<text>.+))\)")
REJECTS_ROWS = "It can reject rows that the models write."
NULL_IS_NO_DUPLICATE = "None for inserts of the models: a column of this key stays NULL, which is no duplicate."
NULLS_ARE_EQUAL = "NULLS NOT DISTINCT"


def accepts_inserts(declared: Table, installed: Table, definition: str) -> bool:
    """Return whether a key, unique index or foreign key that the models do not declare accepts each of their inserts.

    It does if a column of the key is NULL in these rows: not declared, nullable and without a default. Such a row is no
    duplicate and references nothing.
    """
    keys = installed.keys.get(definition, ())
    null_keys = [key for key in keys if _is_null(declared, installed, key)]
    if "MATCH FULL" in definition:
        return len(null_keys) == len(keys)
    return bool(null_keys) and NULLS_ARE_EQUAL not in definition


def _is_null(declared: Table, installed: Table, key: str) -> bool:
    if match := CHANGED_CASE.fullmatch(key):
        key = match["cast"] or match["text"]
    return any(
        quote_name(name) == key and column.nullability == "NULL" and column.default is None
        for name, column in installed.columns.items()
        if name not in declared.columns
    )
