"""The rows in the identity map of a session: the rows of one client are not for another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import inspect

from syntegra_db.client_policies import CLIENT_COLUMN
from syntegra_db.tenancy._criteria import client_models

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session

EXPIRED = {"_sa_instance_state"}


def remove_rows_of_others(session: Session, client_id: int) -> list[object]:
    """Detach the rows that do not belong to `client_id`, and return them; what is loaded of them stays readable."""
    rows = [row for row in session.identity_map.values() if not _may_stay(row, client_id)]
    for row in rows:
        session.expunge(row)
    return rows


def attach_again(session: Session, rows: Iterable[object], *, expired: bool) -> None:
    """Attach detached rows, in place of other objects for the same rows."""
    for row in rows:
        state = inspect(row)
        # A rollback makes a new row transient, and the caller may have attached it to another session.
        if not state.detached:
            continue
        present = session.identity_map.get(state.key)
        if present is not None:
            session.expunge(present)
        session.add(row)
        if expired:
            session.expire(row)


def _may_stay(row: object, client_id: int) -> bool:
    """Return whether `row` is of this client or of none, or has no values, so that it is loaded under the policies."""
    values = vars(row)
    return not isinstance(row, client_models()) or values.get(CLIENT_COLUMN) == client_id or values.keys() == EXPIRED
