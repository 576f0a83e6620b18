"""What pg_dump says of a database, to compare one with another."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from syntegra_db.connections import conninfo
from syntegra_db.embedded import bin_directory

if TYPE_CHECKING:
    from support.servers import Database

# A key of each dump; and how often a column has changed, which servers of November 2026 keep among its options, and an
# older pg_dump takes for one of ours.
DIFFERENT_EACH_TIME = re.compile(r"^(\\(un)?restrict .*|.* SET \(pg_attver=.*)\n", re.MULTILINE)


def dump(database: Database, *options: str) -> str:
    """What the embedded server's pg_dump says, which is as new as any server under test."""
    command = [str(bin_directory() / "pg_dump"), *options, "--dbname", conninfo(database.url)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return DIFFERENT_EACH_TIME.sub("", said)
