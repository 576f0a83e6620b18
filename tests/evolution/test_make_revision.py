"""`make revision`: the next revision is written from the models, with its docstring, tests and changelog entry."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from support.checkouts import Checkout
from support.commands import PROGRAMS
from support.revisions import AFTER_HEAD, HEAD
from support.sample_rows import load_rows, row_digests

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database, Server

pytestmark = pytest.mark.long

AUTHOR = ("-c", "user.name=Author", "-c", "user.email=author@example.com")
PARTS = ("tests", "pyproject.toml", "CHANGELOG.md", "Makefile")
KPI_SOURCE = "    source: Mapped[DataSource | None]"
KPI_INDEX = '        Index("idx_kpi_summary_client_id", "client_id"),\n'
KPI_TYPES = "import BigSerial, ClientId, FiniteNumeric, SourceId, Timestamp, TimestampNow"
NAMES = "import CheckConstraint, Index\n"
LAST_LINE = 'comment="Time when the row was last updated")\n'
NEW_TABLE = '''

class Note(Base):
    """A note."""

    __tablename__ = "notes"
    __table_args__ = (
        CheckConstraint("note LIKE 'a%'", name="note"),
        Index("idx_notes_client_id", "client_id"),
        {"comment": "Notes"},
    )

    id: Mapped[BigSerial] = mapped_column()
    client_id: Mapped[ClientId] = mapped_column()
    note: Mapped[str] = mapped_column(ExactString(20), comment="Note")
    embedding: Mapped[Any] = mapped_column(Embedding, comment="Embedding of the note")


event.listen(Note.__table__, "after_create", DDL("ALTER TABLE %(fullname)s ALTER COLUMN embedding SET STORAGE PLAIN"))
'''


class Case(NamedTuple):
    """Changes of models, as table, old and new text, and what the revision contains."""

    changes: list[tuple[str, str, str]]
    upgrade: list[str]
    downgrade: list[str]
    headings: list[str]


COLUMN = '    remark: Mapped[str | None] = mapped_column(ExactString(50), comment="Remark of an analyst")\n\n'
CASES = {
    "nullable column": Case(
        [("kpi_summary", KPI_SOURCE, COLUMN + KPI_SOURCE)],
        ["op.add_column(", 'sa.Column("remark", sa.String(length=50), nullable=True, comment="Remark of an analyst")'],
        ['op.drop_column("kpi_summary", "remark")'],
        [
            "Locks: ACCESS EXCLUSIVE on kpi_summary for a moment.",
            "Duration: short, for every size of the tables.",
            f"If it fails: it is rolled back, and the database stays at {HEAD};",
            "Downgrade: drops kpi_summary.remark with the values.",
        ],
    ),
    "existing table": Case(
        [
            ("kpi_summary", NAMES, "import CheckConstraint, ForeignKeyConstraint, Index, UniqueConstraint, text\n"),
            (
                "kpi_summary",
                KPI_INDEX,
                KPI_INDEX
                + """        Index("idx_kpi_summary_k", "kpi_value", postgresql_where=text("kpi_name LIKE 'sales%'")),
        UniqueConstraint("client_id", "id"),
        CheckConstraint("kpi_name LIKE 'kpi%'", name="kpi_name"),
        ForeignKeyConstraint(["id"], ["data_sources.id"], name="fk_kpi_summary_same", ondelete="CASCADE"),
""",
            ),
            ("kpi_summary", "ExactString(255)", "ExactString(300)"),
            ("kpi_summary", "KPI value, in the unit", "The KPI value, in the unit"),
            ("clusters", "cluster_name: Mapped[str | None]", "cluster_name: Mapped[str]"),
            ("clusters", 'CheckConstraint("distance_to_centroid >= 0"', 'CheckConstraint("distance_to_centroid > -1"'),
            ("clusters", '        Index("idx_clusters_cluster_id", "cluster_id"),\n', ""),
            (
                "clusters",
                '        CheckConstraint("silhouette_score BETWEEN -1 AND 1", name="silhouette_range"),\n',
                "",
            ),
            ("anomaly_log", '    HIGH = "high"\n', '    HIGH = "high"\n    URGENT = "urgent"\n'),
            ("text_summary", 'SET STORAGE PLAIN")', 'SET STORAGE EXTENDED")'),
        ],
        [
            "op.create_index_online(",
            """postgresql_where=sa.text("kpi_name LIKE 'sales%'")""",
            'op.create_unique_constraint_online("uq_kpi_summary_client_id_id", "kpi_summary", ["client_id", "id"])',
            """op.create_check_constraint_online("ck_kpi_summary_kpi_name", "kpi_summary", "kpi_name LIKE 'kpi%'")""",
            "op.create_foreign_key_online(",
            'op.set_not_null_online("clusters", "cluster_name")',
            'op.drop_constraint("ck_clusters_silhouette_range", "clusters", type_="check")',
            'op.drop_index_online("idx_clusters_cluster_id", "clusters")',
            'op.add_enum_label("anomaly_severity", "urgent", after="high")',
            'op.execute("ALTER TABLE text_summary ALTER COLUMN embedding SET STORAGE EXTENDED")',
        ],
        [
            'op.create_index_online(op.f("idx_clusters_cluster_id"), "clusters", ["cluster_id"], unique=False)',
            'op.execute("ALTER TABLE text_summary ALTER COLUMN embedding SET STORAGE PLAIN")',
            "op.create_check_constraint_online(",
        ],
        [
            "SHARE UPDATE EXCLUSIVE on kpi_summary while the index is built",
            "Duration: grows with the rows of ",
            "If it fails: the finished steps are kept and recorded;",
            "It fails if a row has a label that the ENUM type no longer has",
        ],
    ),
    "new table": Case(
        [
            ("clusters", "import CheckConstraint, Index, func", "import DDL, CheckConstraint, Index, event, func"),
            ("clusters", "import BigSerial, ClientId, ", "import BigSerial, ClientId, Embedding, "),
            ("clusters", LAST_LINE, LAST_LINE + NEW_TABLE),
        ],
        [
            'op.create_table(\n        "notes",',
            "pgvector.sqlalchemy.VECTOR(dim=384)",
            """sa.CheckConstraint("note LIKE 'a%'", name=op.f("ck_notes_note"))""",
            'op.create_index("idx_notes_client_id", "notes", ["client_id"], unique=False)',
            'op.execute("ALTER TABLE notes ALTER COLUMN embedding SET STORAGE PLAIN")',
        ],
        ['op.drop_index("idx_notes_client_id", table_name="notes")', 'op.drop_table("notes")'],
        ["Locks: none on an existing table.", "Downgrade: drops notes with the values."],
    ),
}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout", *PARTS)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_revision_of_changed_models_has_online_operations_and_reaches_the_models(
    checkout: Checkout, server: Server, database: Database, case: Case
) -> None:
    for change in case.changes:
        checkout.change_model(*change)
    assert checkout.write_revision(server, "change what the case says.") == (0, "")
    text = (checkout.folder / f"alembic/versions/{AFTER_HEAD}_change_what_the_case_says.py").read_text(encoding="utf-8")
    docstring, upgrade, downgrade = text.partition("\ndef ")[0], *text.split("\ndef ")[1:]
    assert docstring.startswith('"""Change what the case says.\n\nWhy: …\n')
    for part, expected in (
        (" ".join(docstring.split()), case.headings),
        (upgrade, case.upgrade),
        (downgrade, case.downgrade),
    ):
        for fragment in expected:
            assert fragment in part, part
    checkout.write_manifests(server)
    load_rows(database, 700)
    # The foreign key of the case has ids of data sources.
    database.execute(
        "UPDATE clusters SET cluster_name = 'x';"
        "INSERT INTO data_sources (client_id, name, type) SELECT 1, 'x', 'y' FROM generate_series(1, 300)"
    )
    before = row_digests(database)
    for command in (("upgrade", "head"), ("check",), ("downgrade", HEAD), ("upgrade", "head")):
        checkout.succeed("alembic", *command, database=database)
    checkout.succeed("syntegra-db", "verify", database=database)
    assert {name: digest[0] for name, digest in row_digests(database).items()} == {
        name: digest[0] for name, digest in before.items()
    }
    assert checkout.write_revision(server, "Nothing is left")[0] == 3


@pytest.mark.parametrize(
    ("change", "phase"),
    [
        (("clusters", "cluster_name: Mapped[str | None]", "cluster_name: Mapped[str]"), "contract"),
        (("kpi_summary", KPI_SOURCE, COLUMN.replace("str | None", "str") + KPI_SOURCE), "expand"),
    ],
    ids=["existing column becomes NOT NULL", "new NOT NULL column without a default"],
)
def test_phase_follows_from_what_services_of_the_revision_before_can_write(
    checkout: Checkout, server: Server, change: tuple[str, str, str], phase: str
) -> None:
    checkout.change_model(*change)
    assert checkout.write_revision(server, "Require a value") == (0, "")
    text = (checkout.folder / f"alembic/versions/{AFTER_HEAD}_require_a_value.py").read_text(encoding="utf-8")
    assert f'phase = "{phase}"' in text
    assert "op.set_not_null_online(" in text


def test_make_revision_writes_files_that_pass_and_prints_what_follows(checkout: Checkout) -> None:
    # The models of the last commit are those of the service that runs on the new schema.
    for command in (("init", "--quiet"), ("add", "."), (*AUTHOR, "commit", "--quiet", "--message", "Before")):
        subprocess.run(["git", *command], cwd=checkout.folder, check=True)
    checkout.change_model("kpi_summary", KPI_SOURCE, COLUMN + KPI_SOURCE)
    name = "NAME=it's a remark"
    result = make(checkout, name)
    assert result.returncode == 0, result.stderr
    test = f"tests/revisions/test_{AFTER_HEAD}_it_s_a_remark.py"
    assert result.stdout.splitlines()[:3] == [
        f"Wrote alembic/versions/{AFTER_HEAD}_it_s_a_remark.py",
        f"Wrote {test}",
        "Wrote CHANGELOG.md",
    ]
    assert result.stdout.endswith("\n  2. make generate\n  3. make lint test\n")
    entry = f"- Revision {AFTER_HEAD}: It's a remark.\n"
    assert entry in (checkout.folder / "CHANGELOG.md").read_text(encoding="utf-8").partition("\n### Added")[2]
    checkout.succeed("syntegra-db", "manifests")
    output = checkout.succeed("pytest", "-q", test, "tests/revisions/test_every_revision_is_tested.py")
    assert output.count("4 passed") == 1
    again = make(checkout, name)
    assert again.returncode == 2
    assert f"Error: Revision {AFTER_HEAD} has the name It's a remark already. Choose another name.\n" in again.stderr


def test_revision_that_was_deleted_is_written_again_with_one_changelog_entry(
    checkout: Checkout, server: Server
) -> None:
    checkout.change_model("kpi_summary", KPI_SOURCE, COLUMN + KPI_SOURCE)
    changelog = checkout.folder / "CHANGELOG.md"
    before = changelog.read_text(encoding="utf-8")
    checkout.write_revision(server, "Add a remark")
    entry = f"- Revision {AFTER_HEAD}: Add a remark.\n"
    once = changelog.read_text(encoding="utf-8")
    assert once.replace(entry, "") == before
    checkout.write_manifests(server)
    changelog.write_text(once.replace(entry, entry + "  It is of an analyst.\n"), encoding="utf-8")
    (checkout.folder / f"alembic/versions/{AFTER_HEAD}_add_a_remark.py").unlink()
    test = checkout.folder / f"tests/revisions/test_{AFTER_HEAD}_add_a_remark.py"
    result = checkout.run("syntegra-db", "revision", "Add the remark")
    assert result.returncode == 8
    assert result.stderr.startswith(
        f"Error: tests/revisions/{test.name} has tests of a revision {AFTER_HEAD} that does"
    )
    test.unlink()
    checkout.write_revision(server, "Add the remark")
    assert changelog.read_text(encoding="utf-8") == once.replace("Add a remark", "Add the remark")
    assert not (checkout.manifests / f"{AFTER_HEAD}.json").exists()


@pytest.mark.parametrize("name", [[], ["NAME="], ["NAME= "], ["NAME=…"], ['NAME=a "b"']])
def test_make_revision_without_usable_name_says_what_is_missing(checkout: Checkout, name: list[str]) -> None:
    result = make(checkout, *name)
    assert result.returncode == 2
    assert "Error: A revision needs a name with letters" in result.stderr
    assert not list((checkout.folder / "alembic/versions").glob(f"{AFTER_HEAD}*"))


def test_revision_before_the_manifest_of_the_newest_changes_nothing(checkout: Checkout) -> None:
    checkout.add_revision(AFTER_HEAD, 'op.add_column("kpi_summary", sa.Column("unit", sa.Text()))')
    result = checkout.run("syntegra-db", "revision", "Add more")
    assert result.returncode == 8
    assert result.stderr.endswith("Write it: make generate\n")
    assert len(list((checkout.folder / "alembic/versions").glob("[0-9]*"))) == int(AFTER_HEAD)


def test_revision_outside_a_checkout_says_where_it_works(tmp_path: Path) -> None:
    installed = Checkout(tmp_path / "checkout")
    result = installed.run("syntegra-db", "revision", "Add more")
    assert result.returncode == 8
    assert result.stderr.startswith("Error: A new revision is written in a checkout of syntegra_db")
    assert result.stderr.count("\n") == 1


def make(checkout: Checkout, *variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(checkout.folder), "HOME": str(checkout.folder)}
    command = ["make", "revision", f"VENV={PROGRAMS.parent}", *variables]
    return subprocess.run(command, cwd=checkout.folder, env=environment, capture_output=True, text=True, check=False)
