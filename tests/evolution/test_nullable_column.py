"""`make generate` after a nullable column: only the model and the revision were written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support import psql
from support.checkouts import Checkout
from support.revisions import AFTER_HEAD, HEAD

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

PARTS = ("tools", "docs", "migrations", "scripts", "pyproject.toml")
SOURCE = "    source: Mapped[DataSource | None]"
COLUMN = '    remark: Mapped[str | None] = mapped_column(ExactString(50), comment="Remark of an analyst")\n'
GENERATE = (("syntegra-db", "manifests"), ("syntegra-db", "sql", "--write", "migrations"), ("tools.generate",))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("generated") / "checkout", *PARTS)
    checkout.change_model("kpi_summary", SOURCE, f"{COLUMN}\n{SOURCE}")
    column = 'sa.Column("remark", sa.String(50), comment="Remark of an analyst")'
    checkout.add_revision(
        AFTER_HEAD, f'op.add_column("kpi_summary", {column})', 'op.drop_column("kpi_summary", "remark")'
    )
    return checkout


def read_files(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_column_changes_only_generated_files_and_they_work(
    checkout: Checkout, database: Database, tmp_path: Path
) -> None:
    before = read_files(checkout.folder)
    for command in GENERATE:
        checkout.succeed(*command)
    after = read_files(checkout.folder)
    assert before.keys() <= after.keys()
    assert {name for name, content in after.items() if before.get(name) != content} == {
        f"migrations/{AFTER_HEAD}_sample.sql",
        f"migrations/{AFTER_HEAD}_rollback_sample.sql",
        f"syntegra_db/catalog/manifests/{AFTER_HEAD}.json",
        "scripts/verify_analytics_tables.sql",
        "docs/schema.md",
        "docs/es/migraciones.md",
    }
    changes = f"columna `kpi_summary.remark` | `migrations/{AFTER_HEAD}_sample.sql` |\n"
    assert f"| {AFTER_HEAD} | añade {changes}" in after["docs/es/migraciones.md"].decode()
    assert f"| {AFTER_HEAD} | A sample. | adds column `kpi_summary.remark` |\n" in after["docs/schema.md"].decode()

    def feed(name: str) -> tuple[int, str]:
        result = psql.feed(database.url, after[name].decode(), tmp_path)
        return result.returncode, (result.stdout + result.stderr).strip().rpartition("\n")[2]

    assert feed("scripts/verify_analytics_tables.sql") == (0, f"The analytics tables match revision {HEAD}.")
    assert feed(f"migrations/{AFTER_HEAD}_sample.sql") == (0, f"Revision {AFTER_HEAD} applied.")
    assert feed("scripts/verify_analytics_tables.sql") == (0, f"The analytics tables match revision {AFTER_HEAD}.")
    checkout.succeed("syntegra-db", "verify", database=database)
    checkout.succeed("alembic", "check", database=database)
    database.execute("ALTER TABLE kpi_summary DROP COLUMN remark")
    status, message = feed("scripts/verify_analytics_tables.sql")
    assert (status, f"the analytics tables do not match revision {AFTER_HEAD}" in message) == (3, True)
