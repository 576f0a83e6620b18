"""`make revision` and its tests for columns that a contraction drops, alone or as the old one of a renamed column."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.checkouts import Checkout
from support.linted_revisions import PARTS, RENAME, write_revisions
from support.revisions import AFTER_HEAD, HEAD
from support.sample_rows import load_rows

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database, Server

pytestmark = pytest.mark.long

AUTHOR = ("-c", "user.name=Author", "-c", "user.email=author@example.com")
SECOND, THIRD = f"{int(HEAD) + 2:03}", f"{int(HEAD) + 3:03}"
COLUMN = 'ExactString(255), comment="KPI name, such as sales_mom or avg_ticket"'
OLD = f"    kpi_name: Mapped[str] = mapped_column({COLUMN})\n"
NEW = f"    name: Mapped[str] = mapped_column({COLUMN})\n"
DEPRECATED = f'    kpi_name: Mapped[str] = deprecated_column({COLUMN}, instead="Use name.")\n'
IMPORT = "from syntegra_db.models.exact_types import"
IMPORT_DEPRECATED = f"from syntegra_db.models.deprecation import deprecated_column\n{IMPORT}"
INDEXES = """\
        Index("idx_kpi_summary_client_kpi_period", "client_id", "kpi_name", "period_start"),
"""
NAME_INDEX = '        Index("idx_kpi_summary_kpi_name", "kpi_name"),\n'
NEW_INDEX = '        Index("idx_kpi_summary_name", "name"),\n'
SCORE = """\
    silhouette_score: Mapped[float | None] = mapped_column(
        ExactDouble, comment="Silhouette score of the client in its cluster, from -1 to 1"
    )
"""
SCORE_CHECK = '        CheckConstraint("silhouette_score BETWEEN -1 AND 1", name="silhouette_range"),\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    checkout = Checkout(tmp_path / "checkout", *PARTS)
    # The models of the last commit are those of the service that runs on the new schema.
    for command in (("init", "--quiet"), ("add", "."), (*AUTHOR, "commit", "--quiet", "--message", "Before")):
        subprocess.run(["git", *command], cwd=checkout.folder, check=True)
    return checkout


def expand(checkout: Checkout, server: Server) -> None:
    """Write the expansion of a renamed column, as its author completes what `make revision` writes."""
    checkout.change_model("kpi_summary", OLD, NEW + DEPRECATED)
    checkout.change_model("kpi_summary", IMPORT, IMPORT_DEPRECATED)
    checkout.change_model("kpi_summary", NAME_INDEX, NAME_INDEX + NEW_INDEX)
    assert checkout.write_revision(server, "Rename kpi_name, first part") == (0, "")
    path = revision_file(checkout, AFTER_HEAD)
    text = path.read_text(encoding="utf-8")
    drop = 'op.drop_column("kpi_summary", "name")'
    for old, new in (
        (
            'op.backfill("kpi_summary", {"name": "…"}, "name IS NULL")',
            'op.keep_alike("kpi_summary", "kpi_name", "name")',
        ),
        (drop, f'op.stop_keeping_alike("kpi_summary", "kpi_name", "name")\n    {drop}'),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    complete(checkout, path)
    checkout.write_manifests(server)
    assert not checkout.succeed("tools.revision_lint")
    changelog = checkout.folder / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8")
    changelog.write_text(text.replace("0.1.0 (unreleased)", "0.1.0"), encoding="utf-8")


def complete(checkout: Checkout, path: Path) -> None:
    """Write the docstring of the revision in `path` as `make revisions` says."""
    text = path.read_text(encoding="utf-8").replace("Why: …", "Why: the name is clearer.")
    path.write_text(text, encoding="utf-8")
    report = checkout.run("tools.revision_lint").stdout
    for lines in re.findall(r"Write:\n((?:Locks|Duration|If it fails): .*\n(?:[^/].*\n)*)", report):
        heading = lines.partition(":")[0]
        text = re.sub(rf"^{heading}:.*?\n(?=[A-Z][a-z ]+:)", lines, text, count=1, flags=re.MULTILINE | re.DOTALL)
    path.write_text(text, encoding="utf-8")


def revision_file(checkout: Checkout, revision: str) -> Path:
    [path] = (checkout.folder / "alembic/versions").glob(f"{revision}_*.py")
    return path


def run_tests(checkout: Checkout, revision: str, passed: int) -> str:
    """Run the generated tests of `revision`, and return their text."""
    [path] = (checkout.folder / "tests/revisions").glob(f"test_{revision}_*.py")
    assert f"\n{passed} passed" in checkout.succeed("pytest", "-q", str(path.relative_to(checkout.folder)))
    return path.read_text(encoding="utf-8")


def test_rename_is_written_expanded_and_contracted(checkout: Checkout, server: Server, database: Database) -> None:
    expand(checkout, server)
    run_tests(checkout, AFTER_HEAD, 3)
    checkout.change_model("kpi_summary", DEPRECATED, "")
    checkout.change_model("kpi_summary", IMPORT_DEPRECATED, IMPORT)
    checkout.change_model("kpi_summary", INDEXES, INDEXES.replace("kpi_name", "name"))
    checkout.change_model("kpi_summary", NAME_INDEX, "")
    assert checkout.write_revision(server, "Rename kpi_name, second part") == (0, "")
    path = revision_file(checkout, SECOND)
    text = path.read_text(encoding="utf-8")
    assert 'phase = "contract"' in text
    upgrade, downgrade = text.split("\ndef ")[1:]
    assert "drop_constraint" not in text
    assert "idx_kpi_summary_name" not in upgrade + downgrade
    assert "…" not in upgrade + downgrade
    assert upgrade.index('op.stop_keeping_alike("kpi_summary", "kpi_name", "name")') < upgrade.index(
        'op.drop_column("kpi_summary", "kpi_name")'
    )
    calls = ("op.add_column(", 'op.keep_alike("kpi_summary", "kpi_name", "name")', "op.set_not_null_online(")
    assert sorted(calls, key=downgrade.index) == [*calls]
    path.write_text(text.replace("Why: …", "Why: the name is clearer."), encoding="utf-8")
    checkout.write_manifests(server)
    assert not checkout.succeed("tools.revision_lint")
    assert "LOST" not in run_tests(checkout, SECOND, 2)
    load_rows(database, 700)
    names = database.query("SELECT id, kpi_name FROM kpi_summary ORDER BY id")
    checkout.succeed("syntegra-db", "upgrade", "--contract", database=database)
    assert database.query("SELECT id, name FROM kpi_summary ORDER BY id") == names
    assert database.query("SELECT FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname ~ 'alike'") == []
    for revision in (AFTER_HEAD, HEAD):
        checkout.succeed("syntegra-db", "downgrade", revision, database=database)
        checkout.succeed("syntegra-db", "verify", database=database)
        assert database.query("SELECT id, kpi_name FROM kpi_summary ORDER BY id") == names


def test_other_change_leaves_columns_alike(checkout: Checkout, server: Server) -> None:
    expand(checkout, server)
    checkout.change_model("clusters", SCORE, SCORE.replace("Silhouette score of", "The silhouette score of"))
    assert checkout.write_revision(server, "Change a comment") == (0, "")
    text = revision_file(checkout, SECOND).read_text(encoding="utf-8")
    assert "kpi_summary" not in text
    assert 'phase = "expand"' in text


def test_contraction_of_a_column_with_default_gives_it_back_after_the_values(
    checkout: Checkout, server: Server
) -> None:
    checkout.add_revision(
        AFTER_HEAD,
        """
        op.add_column("data_sources", sa.Column("state", sa.String(50)))
        op.keep_alike("data_sources", "status", "state")
        """,
        'op.stop_keeping_alike("data_sources", "status", "state")\nop.drop_column("data_sources", "state")',
        phase="expand",
    )
    checkout.write_manifests(server)
    checkout.change_model("data_sources", "    status: Mapped[str]", "    state: Mapped[str]")
    checkout.change_model("data_sources", '"idx_data_sources_status", "status"', '"idx_data_sources_state", "state"')
    assert checkout.write_revision(server, "Drop status") == (0, "")
    text = revision_file(checkout, SECOND).read_text(encoding="utf-8")
    downgrade = text.partition("def downgrade")[2]
    calls = (
        'op.add_column(\n        "data_sources"',
        'op.keep_alike("data_sources", "status", "state")',
        'op.alter_column("data_sources", "status", server_default=',
        'op.set_not_null_online("data_sources", "status")',
    )
    assert sorted(calls, key=downgrade.index) == [*calls], downgrade
    checkout.write_manifests(server)
    run_tests(checkout, SECOND, 2)


def test_demo_that_was_not_changed_runs_on_the_expansion(tmp_path: Path, server: Server, database: Database) -> None:
    checkout = Checkout(tmp_path / "demo", *PARTS, "demo")
    write_revisions(checkout, {"expansion": RENAME["expansion"]})
    checkout.change_model("kpi_summary", OLD, NEW + DEPRECATED)
    checkout.change_model("kpi_summary", IMPORT, IMPORT_DEPRECATED)
    checkout.migrate(server, database)
    checkout.succeed("demo", database=database)
    assert database.query("SELECT count(*) > 0, bool_and(name = kpi_name) FROM kpi_summary") == [(True, True)]


def test_revision_after_a_contraction_loads_rows_under_the_new_name(checkout: Checkout, server: Server) -> None:
    write_revisions(checkout, RENAME)
    checkout.write_manifests(server)
    # Of the old column, the indexes were dropped too.
    for old, new in ((OLD, NEW), (INDEXES, INDEXES.replace("kpi_name", "name")), (NAME_INDEX, "")):
        checkout.change_model("kpi_summary", old, new)
    assert checkout.write_revision(server, "Create the index again") == (0, "")
    checkout.write_manifests(server)
    [tests] = (checkout.folder / "tests/revisions").glob(f"test_{THIRD}_*.py")
    output = checkout.succeed("pytest", "-q", str(tests.relative_to(checkout.folder)), "-k", "keep_rows")
    assert "\n1 passed" in output


def test_dropped_column_with_values_in_the_middle_of_a_table(checkout: Checkout, server: Server) -> None:
    checkout.change_model("clusters", SCORE, "")
    checkout.change_model("clusters", SCORE_CHECK, "")
    assert checkout.write_revision(server, "Drop the score") == (0, "")
    checkout.write_manifests(server)
    assert 'LOST = ["clusters.silhouette_score"]' in run_tests(checkout, AFTER_HEAD, 2)
