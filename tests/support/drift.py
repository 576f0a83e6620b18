"""Change a database, verify it, and fix it with the statements that `verify` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from syntegra_db.catalog import DriftReport, verify

if TYPE_CHECKING:
    from support.servers import Database


def run(database: Database, *statements: str) -> None:
    with database.connect() as connection:
        for statement in statements:
            connection.execute(statement.encode())


def drift_report(database: Database, role: str | None = None) -> DriftReport:
    with database.engine.connect() as connection:
        if role is not None:
            connection.execute(text(f"SET ROLE {role}"))
        return verify(connection)


def drifted_objects(report: DriftReport) -> list[str]:
    return [finding.object for finding in report.findings]


def fix_statements(report: DriftReport) -> list[str]:
    statements = [line for finding in report.findings for line in finding.fix.splitlines()]
    return [statement for statement in statements if not statement.startswith("--")]
