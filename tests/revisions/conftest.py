"""A database at the revision before the one under test."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from syntegra_db import migrations
from syntegra_db.client_programs import find_program
from syntegra_db.connecting import conninfo
from syntegra_db.migrations.config import VERSION_TABLE, script_directory

if TYPE_CHECKING:
    from servers import Database


class Revision:
    """The revision under test, on a database of its own that starts right before it."""

    def __init__(self, number: str, database: Database) -> None:
        before = script_directory().get_revision(number).down_revision
        self.before = before if isinstance(before, str) else "base"
        self.number = number
        self.database = database
        if self.before != "base":
            migrations.upgrade(self.before, database.url)

    def upgrade(self) -> None:
        migrations.upgrade(self.number, self.database.url)

    def downgrade(self) -> None:
        migrations.downgrade(self.before, self.database.url)

    def schema(self) -> str:
        """What pg_dump says of the schema, in its order, without the version table that Alembic leaves at base."""
        program = find_dump_program()
        command = [program, "--schema-only", "--exclude-table", VERSION_TABLE, "--dbname", conninfo(self.database.url)]
        dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        # The servers of November 2026 count changes of a column in its options, which an older pg_dump takes for ours.
        return re.sub(r"^(\\(un)?restrict .*|--.*|SET .*|.* SET \(pg_attver=.*)\n", "", dump, flags=re.MULTILINE)


def find_dump_program() -> str:
    """The embedded server's pg_dump, which is as new as any server under test."""
    from syntegra_db.local import program_folder

    return str(program_folder() / find_program("pg_dump").name)


@pytest.fixture
def revision(request: pytest.FixtureRequest, empty_database: Database) -> Revision:
    return Revision(request.module.REVISION, empty_database)
