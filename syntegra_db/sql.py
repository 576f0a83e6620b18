"""SQL text: quoting, executing a statement exactly as it is written, queries on the system catalogs."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.dialects.postgresql.base import PGDialect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, CursorResult, Dialect, TextClause

# PostgreSQL cuts longer names.
MAX_NAME_BYTES = 63
# Words that cannot be a name without quotes, and that SQLAlchemy does not know.
UNKNOWN_KEYWORDS = frozenset({"collation", "concurrently", "lateral", "system_user", "tablesample"})
# Keywords are in upper case or have a blank before the parenthesis.
FUNCTION_CALL = re.compile(r"(?<![\w.])(?!(?:coalesce|greatest|nullif)\()(?=[a-z])(\w+)\(")
RELATION = re.compile(r"(?<=FROM |JOIN )(\(?)(?=pg_(?!catalog\.))")
TYPE = re.compile(r"(?<=::)(?=(?:name|oid|reg\w+|text)\b)")
OPERATOR = re.compile(r"(?<= )(\|\||<>|<=|>=|>>|@>|<@|[=<>~+/&-])(?= )")


def quote_all_keywords(dialect: Dialect) -> None:
    """Let `dialect` quote a name that is one of `UNKNOWN_KEYWORDS`, or that ends with a line break."""
    preparer = dialect.identifier_preparer
    preparer.reserved_words = preparer.reserved_words | UNKNOWN_KEYWORDS
    # SQLAlchemy's pattern ends with `$`, which also matches before a line break at the end.
    preparer.legal_characters = re.compile(r"[A-Z0-9_$]+\Z", re.IGNORECASE)


# The default paramstyle would double a percent sign; `execute_raw` and psql take names as they are.
_dialect = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
quote_all_keywords(_dialect)
# The text of a name, as `regclass` and the setting `search_path` read it.
quote_name = _dialect.identifier_preparer.quote
# `is_system_schema` as a regular expression of PostgreSQL.
SYSTEM_SCHEMA = "^(pg_|information_schema$)"

# The kind of a relation in words, of a column `relkind`: for queries.
RELATION_KIND = """CASE {relkind} WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'f' THEN 'foreign table'
      WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'c' THEN 'composite type' WHEN 'S' THEN 'sequence'
      WHEN 'i' THEN 'index' WHEN 'I' THEN 'partitioned index' ELSE 'TOAST table' END"""
ORDINARY_TABLE = "table"
# The values of the type bigint.
BIGINT = range(-(2**63), 2**63)


def quote(name: str) -> str:
    r"""Return a name for a statement, on one line: control and format characters are as in `U&"a\+00000a"`."""
    if name.isprintable():
        return quote_name(name)
    codes = {"\\": "\\\\", '"': '""'}
    escaped = (codes.get(char, char if char.isprintable() else f"\\+{ord(char):06x}") for char in name)
    return f'U&"{"".join(escaped)}"'


def literal(value: str | None) -> str:
    """Return a string constant, or NULL."""
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


def qualify(schema: str | None, name: str) -> str:
    """Return the name of an object in `schema` for a statement, without a schema for None."""
    return f"{quote(schema)}.{quote(name)}" if schema else quote(name)


def qualify_name(schema: str | None, name: str) -> str:
    """Return the name of an object in `schema` as `regclass` reads it, without a schema for None."""
    return f"{quote_name(schema)}.{quote_name(name)}" if schema else quote_name(name)


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


def lock_for_reading(connection: Connection, table: str) -> None:
    """Keep others from replacing or changing `table`, a name for a statement, until the transaction ends.

    A read that waits for a lock could find a view instead, whose functions it runs; a lock runs none.
    """
    execute_raw(connection, f"LOCK TABLE ONLY {table} IN ACCESS SHARE MODE")


@contextmanager
def one_transaction(connection: Connection) -> Iterator[None]:
    """Run the block, which changes nothing, in one transaction, also if `connection` is in autocommit."""
    if not getattr(connection.connection.dbapi_connection, "autocommit", False):
        yield
        return
    execute_raw(connection, "BEGIN")
    try:
        yield
    finally:
        execute_raw(connection, "ROLLBACK")


def catalog_query(query: str) -> TextClause:
    """Return a query on the system catalogs that means the same with any search_path; see `qualify_calls`."""
    return text(qualify_calls(query))


def qualify_calls(query: str) -> str:
    """Return `query` with pg_catalog as the schema of its functions, operators, `pg_…` relations and `::` casts.

    The equality of `IN`, `CASE x WHEN` and `USING` has no place for a schema: with pg_catalog first, it takes that of
    equal types.
    """
    query = FUNCTION_CALL.sub(r"pg_catalog.\1(", query)
    query = RELATION.sub(r"\1pg_catalog.", query)
    return OPERATOR.sub(r"OPERATOR(pg_catalog.\1)", TYPE.sub("pg_catalog.", query))
