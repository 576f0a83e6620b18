"""A checkout with a revision that partitions kpi_summary by month, and rows of many months."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from support.checkouts import Checkout
from support.evolutions import EVOLUTIONS
from support.revisions import AFTER_HEAD

if TYPE_CHECKING:
    from pathlib import Path

KIND = "partitions by month"
# Past months, the current one, the next ones, and months that have no partition.
MANY_MONTHS: LiteralString = """
    INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end)
    SELECT n % 10, 'kpi_' || n, n, date_trunc('month', now()) + n * interval '16 days', 'infinity'
    FROM generate_series(-40, 40) AS n
"""
PARTITIONS: LiteralString = """
    SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'kpi_summary'::regclass ORDER BY 1
"""


def partitioning_checkout(folder: Path, *parts: str) -> Checkout:
    """Return a checkout with the revision, without its manifest."""
    checkout = Checkout(folder, *parts)
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS[KIND])
    return checkout
