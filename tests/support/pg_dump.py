"""The output of pg_dump, to compare databases with each other."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from syntegra_db.connections import conninfo
from syntegra_db.embedded import bin_directory

if TYPE_CHECKING:
    from support.servers import Database

# A random key in each dump, and the number of times that a column changed, which minor releases of November 2026 store
# among its options and an older pg_dump prints as a column option.
DIFFERENT_EACH_TIME = re.compile(r"^(\\(un)?restrict .*|.* SET \(pg_attver=.*)\n", re.MULTILINE)


def dump(database: Database, *options: str) -> str:
    """Return the output of the embedded server's pg_dump, which is as new as any server under test."""
    command = [str(bin_directory() / "pg_dump"), *options, "--dbname", conninfo(database.url)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return DIFFERENT_EACH_TIME.sub("", output)
