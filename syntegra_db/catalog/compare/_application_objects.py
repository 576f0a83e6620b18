"""What an application added to a managed table, and whether it can reject an insert of the models."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from syntegra_db.catalog._schema import Table

REJECTS_ROWS = "It can reject rows that the models write."
REJECTS_NO_ROW = "None for inserts of the models: it rejects none of their rows."


def preventing_actions(declared: Table, installed: Table, kind: str, part: str) -> tuple[str, ...] | None:
    """Return the actions of ALTER COLUMN after which a part rejects no insert of the models; None if it rejects none.

    `kind` and `part` are as in `Rejection`. A part that was not judged counts as one that rejects rows.
    """
    for rejections in installed.rejections:
        if rejections.declared_columns == tuple(declared.columns):
            return next((found.actions for found in rejections.parts if (found.kind, found.part) == (kind, part)), None)
    return ()


def accepts_inserts(declared: Table, installed: Table, kind: str, part: str) -> bool:
    """Return whether a part that the models do not declare accepts each of their inserts; see `preventing_actions`."""
    return preventing_actions(declared, installed, kind, part) is None
