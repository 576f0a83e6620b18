"""The error of a flush that does not find a row, explained.

It is not in `syntegra_db.errors`, which every command imports, because it needs SQLAlchemy's ORM.
"""

from __future__ import annotations

import re

from sqlalchemy.orm.exc import StaleDataError

from syntegra_db.errors import SyntegraDBError

TABLE = re.compile(r"on table '([^']+)'")


class RowHidden(SyntegraDBError, StaleDataError):
    """A flush did not find the row that it changes: it was deleted, or belongs to another client than the one set."""


def explain_missing_row(error: StaleDataError, client_id: int | None) -> RowHidden:
    """Return the error that says why a flush under `client_id` can miss a row of the table in `error`."""
    name = TABLE.search(str(error))
    setting = "no client is set" if client_id is None else "the client that is set does not own it"
    return RowHidden(
        f"A changed row of the table {name[1] if name else '(unknown)'} was not found: another transaction deleted it, "
        f"or {setting}. Change a row inside `with client(session, …):` of its client; nothing of this flush was "
        "stored, so roll back the transaction."
    )
