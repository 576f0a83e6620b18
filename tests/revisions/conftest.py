"""A database at the revision before the one under test."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from support.pg_dump import dump
from syntegra_db import migrations
from syntegra_db.revisions import VERSION_TABLE, script_directory

if TYPE_CHECKING:
    from support.servers import Database

CREATE_TABLE = re.compile(r"(?<=\(\n)(?P<columns>.*)(?=\n\))", re.DOTALL)


class Revision:
    """The revision under test, and a database that starts at the revision before it."""

    def __init__(self, number: str, database: Database) -> None:
        before = script_directory().get_revision(number).down_revision
        self.before = before if isinstance(before, str) else "base"
        self.number = number
        self.database = database
        if self.before != "base":
            migrations.upgrade(self.before, database.url)

    def upgrade(self) -> None:
        migrations.upgrade(self.number, self.database.url, contract=True)

    def downgrade(self) -> None:
        migrations.downgrade(self.before, self.database.url)

    def schema(self) -> str:
        """Return the schema as pg_dump prints it, without the version table that Alembic leaves at base.

        Columns, and the statements about them, are in the order of their names: one that is dropped and added again is
        the last one of its table, and models name their columns.
        """
        output = dump(self.database, "--schema-only", "--exclude-table", VERSION_TABLE)
        statements = re.sub(r"^(--.*|SET .*)\n", "", output, flags=re.MULTILINE).split(";\n")
        return ";\n".join(sorted(CREATE_TABLE.sub(_with_sorted_columns, statement.strip()) for statement in statements))


def _with_sorted_columns(match: re.Match[str]) -> str:
    return "\n".join(sorted(line.rstrip(",") for line in match["columns"].splitlines()))


@pytest.fixture
def revision(request: pytest.FixtureRequest, empty_database: Database) -> Revision:
    return Revision(request.module.REVISION, empty_database)
