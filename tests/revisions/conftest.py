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
        """Return the schema as pg_dump prints it, without the version table that Alembic leaves at base."""
        output = dump(self.database, "--schema-only", "--exclude-table", VERSION_TABLE)
        return re.sub(r"^(--.*|SET .*)\n", "", output, flags=re.MULTILINE)


@pytest.fixture
def revision(request: pytest.FixtureRequest, empty_database: Database) -> Revision:
    return Revision(request.module.REVISION, empty_database)
