"""What every test of `verify` does: change a database, look at it, mend it as the remedies say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from syntegra_db.catalog import DriftReport, verify

if TYPE_CHECKING:
    from servers import Database

BLOCK = re.compile(r"^-- (?P<name>.+) => (?P<named>.+)\n(?P<statements>(?:(?!--|\n).*\n?)+)", re.MULTILINE)


def mutations(file: str) -> dict[str, tuple[str, str]]:
    """Return from a file of this folder, by name, the statements and the object that they spoil."""
    script = Path(__file__).with_name(file).read_text(encoding="utf-8")
    return {block["name"]: (block["statements"], block["named"]) for block in BLOCK.finditer(script)}


def run(database: Database, *statements: str) -> None:
    with database.connect() as connection:
        for statement in statements:
            connection.execute(statement.encode())


def look(database: Database, role: str | None = None) -> DriftReport:
    with database.engine.connect() as connection:
        if role is not None:
            connection.execute(text(f"SET ROLE {role}"))
        return verify(connection)


def objects(report: DriftReport) -> list[str]:
    return [finding.object for finding in report.findings]


def remedies(report: DriftReport) -> list[str]:
    statements = [line for finding in report.findings for line in finding.fix.splitlines()]
    return [statement for statement in statements if not statement.startswith("--")]
