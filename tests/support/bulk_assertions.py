"""Assertions on a load that is rejected and on its error."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import pytest

from support.bulk_rows import FULL, SECRET, stored
from syntegra_db.bulk import RowRejected, copy_rows, upsert_rows

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from syntegra_db.models import Base


GOOD: dict[type[Base], dict[str, Any]] = {model: {**row, "id": 1} for model, row in FULL.items()}


def assert_rejected(session: Session, model: type[Base], rows: Any, **options: Any) -> RowRejected:
    """Return the error of a load, after checking that it shows no value and that nothing is stored."""
    load = upsert_rows if "key" in options else copy_rows
    with pytest.raises(RowRejected) as info:
        load(session, model, rows, **options)
    error = info.value
    assert error.__cause__ is None
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(error.args) + repr(vars(error))
    shown += repr(error.__context__)
    assert SECRET not in shown
    session.rollback()
    assert stored(session, model) == []
    return error
