"""Whether a search reads every row that it is about, or asks the vector index, and with which setting."""

from __future__ import annotations

from math import ceil, log10, sqrt
from typing import TYPE_CHECKING

from syntegra_db.vectors._index import MAX_EF_SEARCH, RECALL_DEPTHS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from syntegra_db.vectors._index import Calibration, CalibrationPoint, Method, VectorIndex

# Up to here an exact scan takes no longer than an IVFFlat index at a recall of .95, whatever was measured later.
EXACT_SCAN_MAX_ROWS = 25_000
# A row that an index on client_id leads to costs about this many times one that a scan of the whole table meets.
FILTERED_ROW_COST = 2
# At .4 of the lists of an index that was built on the empty table, a search took longer than comparing all rows.
MAX_DEFAULT_PROBES_RATIO = 0.3
# Recall and the setting that reaches it on real sentences, for an index that nobody has measured: probes in square
# roots of lists, an ef_search as it is.
DEFAULT_SETTINGS = {
    "ivfflat": ((0.9, 2.5), (0.95, 4.0), (0.99, 6.0)),
    "hnsw": ((0.9, 40), (0.95, 100), (0.98, 200), (0.99, 400)),
}


def choose_settings(
    indexes: Sequence[VectorIndex], *, recall: float, limit: int, rows: int, all_rows: int
) -> dict[Method, int] | None:
    """Return the setting of each method for a search, or None when reading every row is the better way.

    The search is meant for the first of `indexes`. Through which one it goes is the planner's choice: while a rebuild
    puts one in the place of the other, two of them serve it.
    """
    settings: dict[Method, int] = {}
    for index in indexes:
        if index.is_half is not indexes[0].is_half:
            continue
        setting = choose_setting(index, recall=recall, limit=limit, rows=rows, all_rows=all_rows)
        if setting is None:
            return None
        settings[index.method] = max(setting, settings.get(index.method, 0))
    return settings or None


def choose_setting(index: VectorIndex, *, recall: float, limit: int, rows: int, all_rows: int) -> int | None:
    """Return the `ivfflat.probes` or `hnsw.ef_search` for a search, or None when reading every row is the better way.

    Args:
        index: one that stands.
        recall: share of the true nearest rows to be found, 0 to 1.
        limit: rows to be returned.
        rows: how many rows the search is about, by the server's estimate.
        all_rows: how many rows have an embedding, by the same.
    """
    if rows <= EXACT_SCAN_MAX_ROWS or recall >= 1 or (index.method == "hnsw" and limit > MAX_EF_SEARCH):
        return None
    # A graph grows with its rows; lists stay those of the rows that an index was built on.
    if index.method == "ivfflat" and index.was_rewritten_with_table:
        return None
    depth = limit * max(all_rows / rows, 1)
    if index.tuning is None or not index.is_calibration_current:
        return _default_setting(index, recall, depth)
    chosen = smallest_sufficient(index.tuning.measured, recall, depth)
    if chosen is None or chosen.milliseconds >= _exact_milliseconds(index.tuning, rows, all_rows):
        return None
    return max(chosen.setting, limit) if index.method == "hnsw" else chosen.setting


def smallest_sufficient(measured: tuple[CalibrationPoint, ...], recall: float, depth: float) -> CalibrationPoint | None:
    """Return the measurement with the least setting that finds `recall` of the `depth` nearest rows, if one does."""
    return next((one for one in measured if interpolate_recall(one, depth) >= recall), None)


def interpolate_recall(measurement: CalibrationPoint, depth: float) -> float:
    """Return the recall among the `depth` nearest rows: on a line through those measured, over the depth's logarithm.

    Never more than what was measured for the fewest rows: a deeper neighbour is not found more often.
    """
    near, deep = measurement.recall
    steps = (log10(depth) - log10(RECALL_DEPTHS[0])) / (log10(RECALL_DEPTHS[1]) - log10(RECALL_DEPTHS[0]))
    return min(near, near + (deep - near) * steps)


def _default_setting(index: VectorIndex, recall: float, depth: float) -> int | None:
    factor = next((factor for reached, factor in DEFAULT_SETTINGS[index.method] if reached >= recall), None)
    if factor is None:
        return None
    if index.method == "hnsw":
        ef_search = ceil(factor * max(1, depth / RECALL_DEPTHS[0]))
        return ef_search if ef_search <= MAX_EF_SEARCH else None
    probes = ceil(factor * sqrt(index.lists))
    return probes if probes <= index.lists * MAX_DEFAULT_PROBES_RATIO else None


def _exact_milliseconds(tuning: Calibration, rows: int, all_rows: int) -> float:
    share = rows / all_rows if all_rows else 1
    return tuning.exact_milliseconds * (all_rows / max(tuning.rows, 1)) * min(1, FILTERED_ROW_COST * share)
