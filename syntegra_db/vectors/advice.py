"""Whether to rebuild the vector index, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from syntegra_db.vectors.planning import ALWAYS_EXACT_ROWS

if TYPE_CHECKING:
    from syntegra_db.vectors.condition import Measured, Shape
    from syntegra_db.vectors.index import VectorIndex

RECALL = 0.95
# Of the recall: with more, nothing can be said.
WIDEST_MARGIN = 0.03
# An ivfflat index that has grown tenfold since it was built has .9 of its speed, a hundredfold .57.
GROWTH_TO_REBUILD = 10


@dataclass(frozen=True)
class Evidence:
    """What an advice follows from, each as in `Condition`.

    `is_rebuilding` says that a rebuild is going on; `index` is None where none of the name serves searches.
    """

    is_rebuilding: bool
    index: VectorIndex | None
    shape: Shape | None
    leftovers: list[str]
    rows: int
    built_on: int | None
    measured: Measured | None


def advise(seen: Evidence) -> tuple[str, bool]:
    """Return what to do, and why, in one sentence, and whether that is a rebuild."""
    if seen.is_rebuilding:
        return "Wait: a rebuild is running.", False
    if seen.leftovers:
        left = ", ".join(seen.leftovers)
        return f"Rebuild it: a rebuild was interrupted and left {left}, which the next one drops.", True
    if seen.rows <= ALWAYS_EXACT_ROWS:
        return f"Nothing to do: up to {ALWAYS_EXACT_ROWS:,} rows, a search compares all of them, as fast.", False
    if seen.index is None:
        return f"Rebuild it: the index {_lack(seen.shape)}, so that each search compares all rows.", True
    reason = _flaw(seen.index, seen.rows, seen.built_on, seen.measured)
    if reason is not None:
        return f"Rebuild it: {reason}.", True
    return _praise(seen.measured), False


def _lack(shape: Shape | None) -> str:
    if shape is None:
        return "is missing"
    return "serves no search by cosine distance" if shape.is_valid else "is invalid"


def _flaw(index: VectorIndex, rows: int, built_on: int | None, measured: Measured | None) -> str | None:
    if built_on == 0:
        return "it came with the empty table, and an index that was built on no row finds little or is slow"
    if index.tuning is None or not index.is_as_measured:
        return _ignorance(index)
    if measured is not None and measured.recall is not None and measured.recall + (measured.margin or 0) < RECALL:
        return f"at the setting that searches use, it finds less than the {RECALL:g} that it should"
    if index.method == "ivfflat" and rows >= GROWTH_TO_REBUILD * index.tuning.rows:
        return f"there are {rows / index.tuning.rows:.0f} times the rows that it was built on, which costs speed"
    return None


def _ignorance(index: VectorIndex) -> str:
    if index.method == "ivfflat" and index.is_remade_with_table:
        return "it was made anew with its table, as TRUNCATE does, perhaps on no row, so that each search compares all"
    how = "was built anew by other means since it was measured" if index.tuning else "was never measured"
    return f"it {how}, so that searches guess which setting it needs"


def _praise(measured: Measured | None) -> str:
    if measured is not None and measured.setting is None:
        return "Nothing to do, unless searches are too slow: then try an index of another --method."
    if measured is None:
        return "Not known: it was not measured."
    if measured.margin is None or measured.margin > WIDEST_MARGIN:
        return "Not known: the time was too short to measure it well; allow more with --seconds."
    return "Nothing to do: it finds what it should."
