"""Revisions with online operations: they run in steps, continue after an interruption, and can be undone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from support.checkouts import Checkout
    from support.servers import Database


class Sample(NamedTuple):
    """The bodies of a revision's functions."""

    upgrade: str
    downgrade: str


SAMPLES = {
    "index": Sample(
        'op.create_index_online("idx_kpi_summary_value", "kpi_summary", ["metric_value"])',
        'op.drop_index_online("idx_kpi_summary_value", "kpi_summary")',
    ),
    "index in an autocommit block": Sample(
        """
        with op.get_context().autocommit_block():
            op.create_index("idx_kpi_summary_value", "kpi_summary", ["metric_value"], postgresql_concurrently=True)
        """,
        """
        with op.get_context().autocommit_block():
            op.drop_index("idx_kpi_summary_value", "kpi_summary", postgresql_concurrently=True)
        """,
    ),
    "unique constraint": Sample(
        'op.create_unique_constraint_online("uq_clusters_name", "clusters", ["client_id", "id"])',
        'op.drop_constraint("uq_clusters_name", "clusters")',
    ),
    "CHECK": Sample(
        """op.create_check_constraint_online("ck_kpi_summary_name", "kpi_summary", "kpi_name <> ''")""",
        'op.drop_constraint("ck_kpi_summary_name", "kpi_summary")',
    ),
    "foreign key": Sample(
        """
        op.add_column("kpi_summary", sa.Column("source_id", sa.BigInteger()))
        op.create_index_online("idx_kpi_summary_source_id", "kpi_summary", ["client_id", "source_id"])
        op.create_foreign_key_online(
            "fk_kpi_summary_source", "kpi_summary", "data_sources", ["client_id", "source_id"], ["client_id", "id"]
        )
        """,
        'op.drop_column("kpi_summary", "source_id")',
    ),
    "filled NOT NULL column": Sample(
        """
        op.add_column("kpi_summary", sa.Column("label", sa.Text(), server_default=""))
        op.backfill("kpi_summary", {"label": "upper(kpi_name)"}, "label = ''")
        op.set_not_null_online("kpi_summary", "label")
        """,
        'op.drop_column("kpi_summary", "label")',
    ),
    "ENUM label": Sample(
        """op.add_enum_label("source_status", "paused", before="error")""",
        "",
    ),
}
