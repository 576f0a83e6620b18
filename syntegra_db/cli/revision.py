"""`syntegra-db revision`: write the next revision in a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from syntegra_db.cli.output import echo

NEXT_STEPS = """\
Next:
  1. Complete the docstring of the revision: why, and what could not be derived. To check it: make revisions
  2. make generate
  3. make lint test"""
NO_DIFFERENCE = (
    "The models do not differ from the newest revision, so the functions of the new one are empty: write them, or "
    "change the models first, delete these files and run the command again."
)


def revision(
    name: Annotated[str, typer.Argument(help="What it does, such as 'Add unit to kpi_summary'.")] = "",
) -> None:
    """Write the next revision from the models, in a checkout; it starts a temporary embedded server."""
    from syntegra_db import embedded
    from syntegra_db.migrations.authoring import require_checkout, require_new_name, write_revision

    root = require_checkout()
    require_new_name(name)
    with embedded.temporary_server() as url:
        new = write_revision(url, name)
    here = Path.cwd()
    for path in new.paths:
        echo(f"Wrote {path.relative_to(here) if path.is_relative_to(here) else path}")
    if new.is_empty:
        echo(NO_DIFFERENCE)
    if new.remarks:
        echo(f"Correct what ruff reports in {root}:\n{new.remarks.rstrip()}")
    echo(NEXT_STEPS)
