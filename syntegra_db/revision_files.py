"""Where the revisions are, and which ones exist, without Alembic, whose import takes most of a command's start."""

from __future__ import annotations

import re
from pathlib import Path

# The name of a file begins with the revision.
FILE_NAME = re.compile(r"(\d{3})_\w+\.py")


def script_location() -> Path:
    """Return the directory of the revisions: inside the installed package, or next to it in a checkout."""
    packaged = Path(__file__).parent / "migrations" / "alembic"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "alembic"


def list_revision_names() -> list[str]:
    """Return the revisions of this package, oldest first, read from the names of their files."""
    files = sorted((script_location() / "versions").iterdir())
    return [name[1] for file in files if (name := FILE_NAME.fullmatch(file.name))]
