"""Choose between an exact search and an index scan, and the search setting of the index."""

from __future__ import annotations

from math import ceil, log10, sqrt
from typing import TYPE_CHECKING

from syntegra_db.vectors._index import MAX_EF_SEARCH, RECALL_DEPTHS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from syntegra_db.models.embeddings import Method
    from syntegra_db.vectors._index import Calibration, CalibrationPoint, VectorIndex

EXACT_SCAN_MAX_ROWS = 25_000
"""The number of rows up to which an exact search takes no longer than an IVFFlat index with a recall of 0.95."""
# Reading a row through an index on client_id costs about this many times as much as reading it in a sequential scan.
FILTERED_ROW_COST = 2
# With probes of 40 % of the lists, on an index built on the empty table, a search took longer than an exact one.
MAX_DEFAULT_PROBES_RATIO = 0.3
# For an index without calibration: a recall, and the setting that reaches it on real sentences. Probes are multiples of
# the square root of the lists, ef_search is absolute.
DEFAULT_SETTINGS = {
    "ivfflat": ((0.9, 2.5), (0.95, 4.0), (0.99, 6.0)),
    "hnsw": ((0.9, 40), (0.95, 100), (0.98, 200), (0.99, 400)),
}


def choose_settings(
    indexes: Sequence[VectorIndex], *, recall: float, limit: int, rows: int, all_rows: int
) -> dict[Method, int] | None:
    """Return the search setting of each index method, or None if an exact search is faster; see `choose_setting`.

    The search is planned for the first of `indexes`. During a rebuild, two indexes can serve it and the planner may use
    either, so both get a setting.
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
    """Return the `ivfflat.probes` or `hnsw.ef_search` for a search, or None if an exact search is faster.

    Args:
        index: an installed index.
        recall: share of the exact nearest rows to find, 0 to 1.
        limit: number of rows to return.
        rows: estimated number of rows that pass the filters.
        all_rows: estimated number of rows with an embedding.
    """
    if rows <= EXACT_SCAN_MAX_ROWS or recall >= 1 or (index.method == "hnsw" and limit > MAX_EF_SEARCH):
        return None
    # An hnsw graph grows with its rows; the lists of an ivfflat index are computed once, perhaps on an empty table.
    if index.method == "ivfflat" and index.was_rewritten_with_table:
        return None
    depth = limit * max(all_rows / rows, 1)
    calibration = index.current_calibration
    if calibration is None:
        return _default_setting(index, recall, depth)
    selected = smallest_sufficient(calibration.points, recall, depth)
    if selected is None or selected.milliseconds >= _exact_milliseconds(calibration, rows, all_rows):
        return None
    return max(selected.setting, limit) if index.method == "hnsw" else selected.setting


def chosen_point(calibration: Calibration) -> CalibrationPoint | None:
    """Return the point with the smallest setting that reaches the recall requested of the rebuild, or None."""
    return smallest_sufficient(calibration.points, calibration.recall, RECALL_DEPTHS[0])


def smallest_sufficient(points: Sequence[CalibrationPoint], recall: float, depth: float) -> CalibrationPoint | None:
    """Return the point with the smallest setting that finds `recall` of the `depth` nearest rows, or None."""
    return next((point for point in points if interpolate_recall(point, depth) >= recall), None)


def interpolate_recall(point: CalibrationPoint, depth: float) -> float:
    """Return the recall among the `depth` nearest rows, interpolated linearly over the logarithm of the depth.

    It is never more than the recall at the smaller depth: deeper neighbours are not found more often.
    """
    near, deep = point.recall
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


def _exact_milliseconds(calibration: Calibration, rows: int, all_rows: int) -> float:
    share = rows / all_rows if all_rows else 1
    growth = all_rows / max(calibration.rows, 1)
    return calibration.exact_milliseconds * growth * min(1, FILTERED_ROW_COST * share)
