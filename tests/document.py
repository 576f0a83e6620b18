"""The commands of docs/es/migraciones.md, word for word, and a checkout to run them in as an operator does.

`ALL` are those of its first edition, which stay as they were; `ADDED` came since.
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import termios
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from support.commands import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PSQL = "docker-compose exec postgres psql -U syntegra_user -d syntegra_db"
PSQL_ON_STDIN = "docker-compose exec -T postgres psql -U syntegra_user -d syntegra_db"

MIGRATE = (
    "make migrate-003",
    "bash scripts/run_migration_003.sh",
    f"cat migrations/003_create_analytics_tables.sql | {PSQL_ON_STDIN}",
)
VERIFY = ("make verify-analytics-tables", f"{PSQL} -f /scripts/verify_analytics_tables.sql")
ROLLBACK = (
    "make rollback-003",
    "bash scripts/rollback_migration_003.sh",
    f"cat migrations/003_rollback_analytics_tables.sql | {PSQL_ON_STDIN}",
)
EXTENSION_QUERY = "SELECT * FROM pg_extension WHERE extname = 'vector';"
EXTENSION_STATEMENT = "CREATE EXTENSION IF NOT EXISTS vector;"
CREATE_EXTENSION = f'{PSQL} -c "CREATE EXTENSION vector;"'
LIST_TABLES = f'{PSQL} -c "\\dt"'
BACKUP = "docker-compose exec postgres pg_dump -U syntegra_user syntegra_db > backup_before_migration_003.sql"
EMPTY = (
    "docker-compose exec -T postgres dropdb -U syntegra_user --force syntegra_db",
    "docker-compose exec -T postgres createdb -U syntegra_user syntegra_db",
)
RESTORE = f"cat backup_before_migration_003.sql | {PSQL_ON_STDIN}"
SAVE_ROWS = (
    "docker-compose exec -T postgres pg_dump -U syntegra_user -d syntegra_db --data-only "
    "-t kpi_summary -t text_summary -t trend_signals -t clusters -t anomaly_log > filas_003.sql"
)
RECREATE = ("make rollback-003", "make migrate-003")
RETURN_ROWS = (
    "cat filas_003.sql | docker-compose exec -T postgres psql -v ON_ERROR_STOP=1 --single-transaction "
    "-U syntegra_user -d syntegra_db"
)
REBUILD_INDEX = f'{PSQL_ON_STDIN} -c "REINDEX INDEX idx_text_summary_embedding;"'
ALL = (
    *MIGRATE,
    *VERIFY,
    *ROLLBACK,
    EXTENSION_QUERY,
    EXTENSION_STATEMENT,
    CREATE_EXTENSION,
    LIST_TABLES,
    BACKUP,
    RESTORE,
)
ADDED = (*EMPTY, SAVE_ROWS, *RECREATE, RETURN_ROWS, REBUILD_INDEX)

# What a run of the tests has in its environment and an operator has not.
FOREIGN_VARIABLES = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")


class Outcome(NamedTuple):
    """How a command ended, and what stood on the terminal."""

    status: int
    output: str


@dataclass
class Checkout:
    """A copy of this checkout, with the environment that commands run in."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in files():
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)

    def run(self, command: str, **variables: str) -> Outcome:
        """Run `command` in bash at a terminal, which docker-compose's exec asks for."""
        environment = {name: value for name, value in os.environ.items() if name not in FOREIGN_VARIABLES}
        environment |= {"VENV": sys.prefix, **self.variables, **variables}
        terminal, its_other_end = pty.openpty()
        try:
            # Wide and high enough that nothing is folded or paged.
            termios.tcsetwinsize(its_other_end, (200, 250))
            process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.folder,
                env=environment,
                stdin=its_other_end,
                stdout=its_other_end,
                stderr=its_other_end,
                start_new_session=True,
            )
            os.close(its_other_end)
            output = b"".join(iter(lambda: _read(terminal), b""))
            return Outcome(process.wait(), output.decode().replace("\r\n", "\n"))
        finally:
            os.close(terminal)

    def succeed(self, command: str, **variables: str) -> str:
        """Run `command`, which must exit 0, and return what stood on the terminal."""
        outcome = self.run(command, **variables)
        assert outcome.status == 0, outcome.output
        return outcome.output


def files() -> list[str]:
    """The files that git keeps, or would keep once they are added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        # How Linux says that the last writer has closed its end.
        return b""
