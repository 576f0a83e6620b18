"""Run plain psql, without flags and settings."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from syntegra_db.client_programs import find_program
from syntegra_db.connections import conninfo

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine import URL


def feed(url: URL, script: str, home: Path, *, search_path: str = "public") -> subprocess.CompletedProcess[str]:
    """Run `cat script | psql` without flags; the user's own psql settings do not apply, because HOME is `home`."""
    environment = {**os.environ, "HOME": str(home), "PGOPTIONS": f"-c search_path={search_path}"}
    command = [str(find_program("psql")), conninfo(url)]
    return subprocess.run(
        command, input=script, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
