"""`make revisions`: what a revision must not contain is reported with what to use instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.checkouts import Checkout
from support.evolutions import EVOLUTIONS
from support.linted_revisions import PARTS, RENAME, Fault, lint_faults, write_revisions
from support.revisions import HEAD
from syntegra_db.catalog import load_manifest
from syntegra_db.catalog.ddl import recreate_enum

if TYPE_CHECKING:
    from pathlib import Path

# Its operations are known only while it runs.
UNREADABLE = "index after a query"
CONTRACTIONS = {"dropped column"}
COLUMN = 'op.add_column("kpi_summary", sa.Column("unit", sa.String(10)))'
DROP_COLUMN = 'op.drop_column("kpi_summary", "unit")'
FAULTS = {
    "index": Fault(
        'op.create_index("idx_kpi_summary_value", "kpi_summary", ["kpi_value"])',
        "create index idx_kpi_summary_value locks kpi_summary (SHARE) while the index is built. Use "
        "op.create_index_online.",
    ),
    "CHECK": Fault(
        """op.create_check_constraint("ck_kpi_summary_x", "kpi_summary", "kpi_value > 0")""",
        "while all its rows are read. Use op.create_check_constraint_online.",
    ),
    "foreign key": Fault(
        'op.create_foreign_key("fk_kpi_x", "kpi_summary", "text_summary", ["id"], ["id"])',
        "locks text_summary (SHARE ROW EXCLUSIVE) while all its rows are read. Use op.create_foreign_key_online.",
    ),
    "unique constraint": Fault(
        'op.create_unique_constraint("uq_kpi_x", "kpi_summary", ["client_id", "id"])',
        "Use op.create_unique_constraint_online.",
    ),
    "NOT NULL": Fault(
        'op.alter_column("kpi_summary", "metadata", nullable=False)', "Use op.set_not_null_online.", phase="contract"
    ),
    "changed type": Fault(
        'op.alter_column("kpi_summary", "kpi_name", type_=sa.String(100))',
        "while it is rewritten. Use a new column and op.keep_alike.",
        phase="contract",
    ),
    "default with a function": Fault(
        """op.add_column("kpi_summary", sa.Column("x", sa.UUID(), server_default=sa.text("gen_random_uuid()")))""",
        "while it is rewritten. Use a column without the default, op.backfill, then op.alter_column",
    ),
    "SQL": Fault(
        'op.execute("CREATE INDEX idx_kpi_x ON kpi_summary (kpi_value)")',
        "squawk reports require-concurrent-index-creation: During normal index creation, table updates are blocked, "
        "but reads are still allowed. Use op.create_index_online.",
    ),
    "SQL with NOT NULL": Fault(
        'op.execute("ALTER TABLE kpi_summary ALTER metadata SET NOT NULL")',
        "Use op.set_not_null_online.",
        phase="contract",
    ),
    "index of the downgrade": Fault(
        'op.create_index_online("idx_kpi_x", "kpi_summary", ["kpi_value"])',
        "downgrade: drop index idx_kpi_x locks kpi_summary (ACCESS EXCLUSIVE) for a moment. Use op.drop_index_online.",
        downgrade='op.drop_index("idx_kpi_x", "kpi_summary")',
    ),
    "table without clients": Fault(
        'op.create_table("rates", sa.Column("id", sa.BigInteger()), sa.PrimaryKeyConstraint("id", name="pk_rates"))',
        "table rates has no column client_id, so under `syntegra-db tenancy` no service may read it. Add the column,",
        downgrade='op.drop_table("rates")',
    ),
    "two phases": Fault(
        f'{COLUMN}\nop.drop_column("kpi_summary", "metadata")',
        "upgrade has two phases: an expansion (add column kpi_summary.unit) and a contraction (drop column "
        "kpi_summary.metadata). Move the contraction to a revision of a later release",
    ),
    "two phases, with a new type": Fault(
        "op.execute(\"CREATE TYPE note_kind AS ENUM ('short')\")\n"
        """op.execute("ALTER TYPE trend_status RENAME TO old_status")\nop.execute("DROP TYPE old_status")""",
        "upgrade has two phases: an expansion (execute SQL) and a contraction (execute SQL).",
    ),
    "renamed column": Fault(
        'op.alter_column("kpi_summary", "metadata", new_column_name="details")',
        "services of the revision before do not work after this: rename column kpi_summary.metadata. Write phase = "
        '"contract".',
    ),
    "SQL that drops a column": Fault(
        'op.execute("ALTER TABLE kpi_summary DROP metadata")', "services of the revision before do not work after this"
    ),
    "SQL that renames a table": Fault(
        'op.execute("alter table kpi_summary rename to kpis")', "services of the revision before do not work after this"
    ),
    "dropped default": Fault(
        'op.alter_column("kpi_summary", "calculated_at", server_default=None)',
        "do not work after this: drop the default of kpi_summary.calculated_at.",
    ),
    "NOT NULL of a column without a default": Fault(
        f'{COLUMN}\nop.backfill("kpi_summary", {{"unit": "\'EUR\'"}})\nop.set_not_null_online("kpi_summary", "unit")',
        "a contraction (set kpi_summary.unit NOT NULL, which services of the revision before may not give)",
    ),
    "expansion called contraction": Fault(
        COLUMN, "phase is contract, but this is an expansion: add column kpi_summary.unit.", DROP_COLUMN, "contract"
    ),
    "no phase": Fault(COLUMN, 'phase is missing. Write phase = "expand"', DROP_COLUMN, None),
    "no name": Fault(
        'op.create_index_online(None, "kpi_summary", ["kpi_value"])', "create index kpi_summary has no name."
    ),
    "column with unnamed objects": Fault(
        """op.create_table("notes", sa.Column("id", sa.Uuid(), sa.ForeignKey("clusters.id"), primary_key=True))""",
        "notes.id: primary_key in the column has no name. Write it as a constraint or an index with a name.",
        'op.drop_table("notes")',
    ),
    "no downgrade": Fault(COLUMN, "downgrade does nothing.", "pass"),
    "no upgrade": Fault("pass", "upgrade: it does nothing."),
    "value that is not written": Fault(
        'op.backfill("kpi_summary", {"metadata": "…"})', "has no value yet. Write its SQL expression instead of …; "
    ),
    "two SET NOT NULL": Fault(
        'op.execute("ALTER TABLE kpi_summary ALTER kpi_name SET NOT NULL, ALTER metadata SET NOT NULL")',
        "do not work after this: set kpi_summary.metadata NOT NULL, which services of the revision before may not give",
    ),
    "SET NOT NULL of two tables": Fault(
        """
        op.execute(
            "ALTER TABLE kpi_summary ALTER kpi_name SET NOT NULL; alter table clusters alter centroid set not null"
        )
        """,
        "do not work after this: set clusters.centroid NOT NULL, which services of the revision before may not give",
    ),
    "two online SET NOT NULL": Fault(
        """
        op.set_not_null_online("kpi_summary", "kpi_name")
        op.set_not_null_online("kpi_summary", "metadata")
        op.set_not_null_online("kpi_summary", "source_id")
        """,
        "set kpi_summary.metadata NOT NULL, which services of the revision before may not give, set kpi_summary.",
    ),
    "connection": Fault("op.get_bind().execute(sa.text('SELECT 1'))", "upgrade uses the connection (op.get_bind() or"),
}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout", *PARTS)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is reported about each revision of `FAULTS`."""
    return lint_faults(Checkout(tmp_path_factory.mktemp("lint") / "checkout", *PARTS), FAULTS)


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_reported_with_what_to_use(reports: dict[str, str], name: str) -> None:
    assert FAULTS[name].reported in reports[name]


def test_kinds_of_evolution_are_accepted(checkout: Checkout) -> None:
    kinds = {
        name: (evolution.upgrade, evolution.downgrade, "contract" if name in CONTRACTIONS else "expand")
        for name, evolution in EVOLUTIONS.items()
        if name != UNREADABLE
    }
    write_revisions(checkout, kinds)
    assert not checkout.succeed("tools.revision_lint")


def test_removed_enum_label_is_accepted_as_contraction(checkout: Checkout) -> None:
    column = load_manifest(HEAD).tables["anomaly_log"].columns["severity"]
    labels, columns = ["low", "medium", "high"], [("anomaly_log", "severity", column)]
    # What `make revision` writes, and the other order: the new type first, which then takes the name.
    statements = recreate_enum("anomaly_severity", labels, columns).splitlines()[1:-1]
    other_order = [
        "CREATE TYPE \"severity_new\" AS ENUM ('low')",
        "ALTER TABLE anomaly_log ALTER severity TYPE severity_new USING severity::text::severity_new",
        "DROP TYPE anomaly_severity",
        "alter type severity_new rename to anomaly_severity",
    ]
    add = """op.add_enum_label("anomaly_severity", "critical", after="high")"""
    upgrades = ["\n".join(f"op.execute({text!r})" for text in texts) for texts in (statements, other_order)]
    write_revisions(checkout, {str(number): (upgrade, add, "contract") for number, upgrade in enumerate(upgrades)})
    assert not checkout.succeed("tools.revision_lint")


@pytest.mark.parametrize(
    ("old", "new", "reported"),
    [
        (
            "Duration: grows with the rows of anomaly_log, clusters, kpi_summary, processed_data or text_summary.\n",
            "",
            "the docstring has no heading 'Duration'.",
        ),
        ("it shows what a revision can do", "…", "the docstring has no text under 'Why' yet."),
        (
            "it reverts it",
            "what it drops, and which rows it deletes",
            "the docstring has no text under 'Downgrade' yet.",
        ),
    ],
)
def test_unfinished_docstring_is_reported(checkout: Checkout, old: str, new: str, reported: str) -> None:
    revision = write_revisions(checkout, {"column": (COLUMN, DROP_COLUMN, "expand")})["column"]
    path = checkout.folder / f"alembic/versions/{revision}_sample.py"
    text = path.read_text(encoding="utf-8").replace("Downgrade: reverts it", "Downgrade: it reverts it")
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert reported in checkout.succeed("tools.revision_lint", status=1)


def test_contraction_in_the_release_of_its_expansion_is_reported(checkout: Checkout) -> None:
    revisions = write_revisions(checkout, RENAME)
    assert not checkout.succeed("tools.revision_lint")
    changelog = checkout.folder / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8")
    entry = f"- Revision {revisions['contraction']}: A sample.\n"
    before = f"- Revision {revisions['expansion']}: A sample.\n"
    changelog.write_text(text.replace(entry, "").replace(before, before + entry), encoding="utf-8")
    report = checkout.succeed("tools.revision_lint", status=1)
    assert "this contraction of kpi_summary is in release 1.4.0 like its expansion, revision 004." in report
    changelog.write_text(text.replace(entry, ""), encoding="utf-8")
    assert "CHANGELOG.md has no entry of the revision." in checkout.succeed("tools.revision_lint", status=1)


def test_failure_of_squawk_is_reported(checkout: Checkout) -> None:
    (checkout.folder / ".squawk.toml").write_text("excluded_rules = [", encoding="utf-8")
    result = checkout.run("tools.revision_lint")
    assert result.returncode == 1
    assert result.stderr.startswith("squawk failed: Configuration error")
