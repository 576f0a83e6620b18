"""The commands of docs/es/migraciones.md, word for word, and a checkout to run them in."""

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
RECREATE_DATABASE = (
    "docker-compose exec -T postgres dropdb -U syntegra_user --force syntegra_db",
    "docker-compose exec -T postgres createdb -U syntegra_user syntegra_db",
)
RESTORE = f"cat backup_before_migration_003.sql | {PSQL_ON_STDIN}"
SAVE_ROWS_003 = (
    "docker-compose exec -T postgres pg_dump -U syntegra_user -d syntegra_db --data-only "
    "-t kpi_summary -t text_summary -t trend_signals -t clusters -t anomaly_log > filas_003.sql"
)
RECREATE_TABLES = ("make rollback-003", "make migrate-003")
RESTORE_ROWS_003 = (
    "cat filas_003.sql | docker-compose exec -T postgres psql -v ON_ERROR_STOP=1 --single-transaction "
    "-U syntegra_user -d syntegra_db"
)
REINDEX = f'{PSQL_ON_STDIN} -c "REINDEX INDEX idx_text_summary_embedding;"'
# The commands of the first edition: never change them.
ORIGINAL_COMMANDS = (
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
ADDED_COMMANDS = (*RECREATE_DATABASE, SAVE_ROWS_003, *RECREATE_TABLES, RESTORE_ROWS_003, REINDEX)

# Variables of the test run that an operator's shell does not have.
TEST_RUN_VARIABLES = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")


class Outcome(NamedTuple):
    """The exit status of a command and its terminal output."""

    status: int
    output: str


@dataclass
class Checkout:
    """A copy of this checkout, and the environment of its commands."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in repository_files():
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)

    def run(self, command: str, **variables: str) -> Outcome:
        """Run `command` in bash on a terminal, which `docker-compose exec` requires."""
        environment = {name: value for name, value in os.environ.items() if name not in TEST_RUN_VARIABLES}
        environment |= {"VENV": sys.prefix, **self.variables, **variables}
        terminal, child_terminal = pty.openpty()
        try:
            # Large enough to prevent wrapping and paging.
            termios.tcsetwinsize(child_terminal, (200, 250))
            process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.folder,
                env=environment,
                stdin=child_terminal,
                stdout=child_terminal,
                stderr=child_terminal,
                start_new_session=True,
            )
            os.close(child_terminal)
            output = b"".join(iter(lambda: _read(terminal), b""))
            return Outcome(process.wait(), output.decode().replace("\r\n", "\n"))
        finally:
            os.close(terminal)

    def succeed(self, command: str, **variables: str) -> str:
        """Run `command`, assert that it exits with 0, and return its output."""
        outcome = self.run(command, **variables)
        assert outcome.status == 0, outcome.output
        return outcome.output


def repository_files() -> list[str]:
    """Return the tracked files, and the untracked files that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in output.split("\0") if name and (ROOT / name).is_file()]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        # Linux reports EIO when the last writer has closed the terminal.
        return b""
