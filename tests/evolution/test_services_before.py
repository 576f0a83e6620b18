"""Services of this version on the schema of the next one: after an expansion, and without a deprecated column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.checkouts import Checkout
from support.evolutions import EVOLUTIONS
from support.revisions import AFTER_HEAD
from support.services import run_service

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database, Server

# Services of this version cannot work after the first; the second rejects values that they may write.
NO_EXPANSIONS = {"dropped column", "CHECK"}
METADATA = """\
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata", ExactJson, comment="Additional data about the value, such as its unit"
"""
DEPRECATED = METADATA.replace(" = mapped_column(", " = deprecated_column(").replace(
    "ExactJson,", "ExactJson, instead='',"
)
IMPORT = "from syntegra_db.models.exact_types"
USE = """
import warnings
from sqlalchemy import select
from syntegra_db.database import create_engine, session_factory
from syntegra_db.models import KpiSummary

with session_factory(create_engine())() as session, warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    kpi = session.scalars(select(KpiSummary)).first()
    print(kpi.metadata_, len(caught))
    kpi.metadata_ = {"unit": "EUR"}
    session.commit()
    print(KpiSummary(kpi_name="x", metadata={}).metadata_, len(caught))
    session.refresh(kpi, ["metadata_"])
    print(kpi.metadata_, [warning.filename for warning in caught if "Use unit." in str(warning.message)])
"""


def migrate(checkout: Checkout, server: Server, database: Database, kind: str, phase: str) -> None:
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS[kind], phase=phase)
    checkout.write_manifests(server)
    checkout.succeed("syntegra-db", "upgrade", "--contract", database=database)


@pytest.mark.parametrize("kind", sorted(EVOLUTIONS.keys() - NO_EXPANSIONS))
def test_service_of_revision_before_works_after_expansion(
    checkout: Checkout, server: Server, database: Database, kind: str
) -> None:
    migrate(checkout, server, database, kind, "expand")
    result = run_service(database)
    assert result.returncode == 0, result.stderr


@pytest.mark.long
def test_service_of_revision_before_does_not_start_after_contraction(
    checkout: Checkout, server: Server, database: Database
) -> None:
    migrate(checkout, server, database, "dropped column", "contract")
    assert "DatabaseAhead: The database is at revision" in run_service(database).stderr


@pytest.fixture
def deprecating(tmp_path: Path) -> Checkout:
    """A version in which a column of a model is deprecated."""
    checkout = Checkout(tmp_path / "deprecating", "tests")
    checkout.change_model("kpi_summary", METADATA, DEPRECATED.replace("instead=''", 'instead="Use unit."'))
    checkout.change_model(
        "kpi_summary", IMPORT, f"from syntegra_db.models.deprecation import deprecated_column\n{IMPORT}"
    )
    return checkout


@pytest.mark.long
def test_service_that_deprecates_a_column_works_before_and_after_it_is_dropped(
    checkout: Checkout, deprecating: Checkout, server: Server, database: Database
) -> None:
    for commands in (("syntegra-db", "verify"), ("alembic", "check")):
        deprecating.succeed(*commands, database=database)
    result = run_service(database, deprecating.folder)
    assert result.returncode == 0, result.stderr
    # As an expansion, so that both versions of the service start.
    migrate(checkout, server, database, "dropped column", "expand")
    result = run_service(database, deprecating.folder)
    assert result.returncode == 0, result.stderr
    assert 'column "metadata" of relation "kpi_summary" does not exist' in run_service(database).stderr


def test_deprecated_attribute_works_with_warning(deprecating: Checkout, database: Database) -> None:
    database.execute(
        "INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end, metadata) "
        """VALUES (1, 'kpi', 1, now(), now(), '{"unit": "USD"}')"""
    )
    (deprecating.folder / "use.py").write_text(USE, encoding="utf-8")
    first, second, third = deprecating.succeed("use", database=database).splitlines()
    assert first == "{'unit': 'USD'} 1"
    assert second == "{} 3"
    assert third.startswith("{'unit': 'EUR'} ")
    assert third.count("use.py") == 4
