"""SQL text: quoting, and executing a statement exactly as it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.postgresql.base import PGDialect

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult

quote = PGDialect().identifier_preparer.quote  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped


def literal(value: str | None) -> str:
    """Return a string constant, or NULL."""
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


def execute_raw(connection: Connection, statement: str) -> CursorResult[Any]:
    """Execute one statement as written: a colon or a percent sign in it has no meaning to the driver."""
    return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
