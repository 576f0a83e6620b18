"""Columns that `op.keep_alike` keeps alike: what `make revisions` requires until a contraction drops one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.checkouts import Checkout
from support.linted_revisions import PARTS, RENAME, Fault, lint_faults, write_revisions
from support.revisions import HEAD

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Server

ADD_NAME = 'op.add_column("kpi_summary", sa.Column("name", sa.String(255)))'
DROP_NAME = 'op.drop_column("kpi_summary", "name")'
KEEP_NAME = 'op.keep_alike("kpi_summary", "kpi_name", "name")'
STOP_NAME = 'op.stop_keeping_alike("kpi_summary", "kpi_name", "name")'
ADD_CONTENT = 'op.add_column("text_summary", sa.Column("content", sa.Text()))'
KEEP_CONTENT = 'op.keep_alike("text_summary", "text_field", "content")'
STOP_CONTENT = 'op.stop_keeping_alike("text_summary", "text_field", "content")'
BEHIND = "leaves the trigger of op.keep_alike behind, with which writes fail. Write before it:"
# Columns of which the new one becomes NOT NULL in a later expansion.
NOT_NULL_LATER = {
    "add": (f"{ADD_CONTENT}\n{KEEP_CONTENT}", f'{STOP_CONTENT}\nop.drop_column("text_summary", "content")', "expand"),
    "require": (
        'op.set_not_null_online("text_summary", "content")',
        'op.alter_column("text_summary", "content", nullable=True)',
        "expand",
    ),
}
FAULTS = {
    "NOT NULL of a column like a nullable one": Fault(
        """
        op.add_column("processed_data", sa.Column("origin_id", sa.BigInteger()))
        op.keep_alike("processed_data", "source_id", "origin_id")
        op.set_not_null_online("processed_data", "origin_id")
        """,
        "a contraction (set processed_data.origin_id NOT NULL, which services of the revision before may not give)",
        """
        op.stop_keeping_alike("processed_data", "source_id", "origin_id")
        op.drop_column("processed_data", "origin_id")
        """,
    ),
    "new column with a default": Fault(
        """
        op.add_column("processed_data", sa.Column("kind", sa.String(50), server_default="", nullable=False))
        op.keep_alike("processed_data", "source_type", "kind")
        """,
        "processed_data.kind has a server_default, which op.keep_alike would write over the other column",
        """
        op.stop_keeping_alike("processed_data", "source_type", "kind")
        op.drop_column("processed_data", "kind")
        """,
    ),
    "columns alike after the downgrade": Fault(
        f"{ADD_NAME}\n{KEEP_NAME}",
        f"downgrade: drop column kpi_summary.name {BEHIND} {STOP_NAME}",
        DROP_NAME,
    ),
    "columns alike after a downgrade that drops none": Fault(
        f"{ADD_CONTENT}\n{KEEP_CONTENT}",
        f"downgrade: it does not end op.keep_alike of upgrade. Write, before the column is dropped: {STOP_CONTENT}",
    ),
    "dropped column of two that are alike": Fault(
        'op.drop_column("kpi_summary", "kpi_name")',
        f"upgrade: drop column kpi_summary.kpi_name {BEHIND} {STOP_NAME}",
        phase="contract",
    ),
    "SQL that drops a column of two that are alike": Fault(
        "op.execute(\"ALTER TABLE text_summary ALTER language SET DEFAULT 'es', DROP COLUMN text_field\")",
        f"upgrade: execute SQL {BEHIND} {STOP_CONTENT}",
        phase="contract",
    ),
    "renamed column of two that are alike": Fault(
        'op.alter_column("text_summary", "content", new_column_name="body")',
        f"upgrade: alter column text_summary.content {BEHIND} {STOP_CONTENT}",
        phase="contract",
    ),
    "end of columns that are not alike": Fault(
        'op.stop_keeping_alike("kpi_summary", "name", "kpi_name")',
        "ends nothing, because op.keep_alike was not called with these columns. Write its arguments, in the same",
    ),
    "contraction whose downgrade restores only the column": Fault(
        f'{STOP_NAME}\nop.drop_column("kpi_summary", "kpi_name")',
        "downgrade: it does not restore what op.stop_keeping_alike of upgrade ends. Write, after the column is added: "
        f"{KEEP_NAME}",
        'op.add_column("kpi_summary", sa.Column("kpi_name", sa.String(255)))',
        "contract",
    ),
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is reported about each revision of `FAULTS`."""
    return lint_faults(Checkout(tmp_path_factory.mktemp("lint") / "checkout", *PARTS), FAULTS)


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_reported_with_call_to_write(reports: dict[str, str], name: str) -> None:
    assert FAULTS[name].reported in reports[name]


def test_rename_with_and_without_not_null_is_accepted(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "checkout", *PARTS)
    write_revisions(checkout, RENAME | NOT_NULL_LATER)
    assert not checkout.succeed("tools.revision_lint")


def test_generated_pages_say_that_a_column_is_renamed(tmp_path: Path, server: Server) -> None:
    checkout = Checkout(tmp_path / "checkout", *PARTS, "docs", "migrations")
    for number, (upgrade, downgrade, phase) in enumerate(RENAME.values(), int(HEAD)):
        checkout.add_revision(f"{number + 1:03}", upgrade, downgrade, before=f"{number:03}", phase=phase)
    checkout.write_manifests(server)
    rows = checkout.evaluate("from tools.revision_docs import guide, table; print(guide(), table())").splitlines()
    spanish = "renombra columna `kpi_summary.kpi_name` a `kpi_summary.name` (ambas se mantienen iguales)"
    english = "renames column `kpi_summary.kpi_name` to `kpi_summary.name` (both are kept alike)"
    for expansion, verb, contraction in ((spanish, "añade", "elimina"), (english, "adds", "drops")):
        assert [
            row for row in rows if expansion in row and f"{verb} columna" not in row and f"{verb} column " not in row
        ]
        assert [row for row in rows if f"{contraction} column" in row and "`kpi_summary.kpi_name`" in row]
