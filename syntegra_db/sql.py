"""SQL text: quoting, and executing a statement exactly as it is written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.postgresql.base import PGDialect

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Dialect

# Words that cannot be a name without quotes, and that SQLAlchemy does not know.
UNKNOWN_KEYWORDS = frozenset({"collation", "concurrently", "lateral", "system_user", "tablesample"})


def quote_all_keywords(dialect: Dialect) -> None:
    """Let `dialect` quote a name that is one of `UNKNOWN_KEYWORDS`, or that ends with a line break."""
    preparer = dialect.identifier_preparer
    preparer.reserved_words = preparer.reserved_words | UNKNOWN_KEYWORDS
    # SQLAlchemy's pattern ends with `$`, which also matches before a line break at the end.
    preparer.legal_characters = re.compile(r"[A-Z0-9_$]+\Z", re.IGNORECASE)


# The default paramstyle would double a percent sign; `execute_raw` and psql take names as they are.
_dialect = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
quote_all_keywords(_dialect)
quote = _dialect.identifier_preparer.quote
# `is_system_schema` as a regular expression of PostgreSQL.
SYSTEM_SCHEMA = "^(pg_|information_schema$)"


def literal(value: str | None) -> str:
    """Return a string constant, or NULL."""
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


def qualify(schema: str | None, name: str) -> str:
    """Return the quoted name of an object in `schema`, without a schema for None."""
    return f"{quote(schema)}.{quote(name)}" if schema else quote(name)


def qualify_operator(schema: str | None, operator: str) -> str:
    """Return an operator of `schema`, as it is for None."""
    return f"OPERATOR({quote(schema)}.{operator})" if schema else operator


def is_system_schema(name: str) -> bool:
    """Return whether the schema is one of PostgreSQL's own; users cannot create one with such a name."""
    return name.startswith("pg_") or name == "information_schema"


def execute_query(connection: Connection, query: str) -> CursorResult[Any]:
    """Execute one SELECT as written, by the extended protocol: the server rejects a second statement in the text."""
    # psycopg uses that protocol for statements with parameters; LIMIT NULL is no limit.
    return connection.exec_driver_sql(f"{query.replace('%', '%%')} LIMIT %s", (None,))


def execute_raw(connection: Connection, statement: str) -> CursorResult[Any]:
    """Execute a statement of this package as written: a colon or a percent sign has no meaning to the driver."""
    return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
