"""A service that uses every model, of this checkout or of the one before a revision, on a database of any revision."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, inspect, select
from sqlalchemy.orm.attributes import flag_modified

from support.bulk_rows import FULL
from support.commands import ROOT
from syntegra_db.bulk import copy_rows, upsert_rows
from syntegra_db.database import create_engine, session_factory
from syntegra_db.migrations import require_head
from syntegra_db.models import TextSummary
from syntegra_db.vectors import search

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

    from support.servers import Database


def main() -> None:
    """Use the database of DATABASE_URL, and change nothing in the end."""
    engine = create_engine()
    require_head(engine)
    with session_factory(engine)() as session:
        use_models(session)
        session.rollback()
    engine.dispose()


def use_models(session: Session) -> None:
    """Write, read, load, search and delete rows of every model in each way that the package offers."""
    for model, values in FULL.items():
        given = {name: value for name, value in values.items() if not inspect(model).attrs[name].deferred}
        row = model(**given)
        session.add(row)
        session.flush()
        session.refresh(row)
        for name in given:
            flag_modified(row, name)
        session.flush()
        first, second = ({**given, "id": identity} for identity in (2**40, 2**40 + 1))
        copy_rows(session, model, [first])
        upsert_rows(session, model, [first, second], key=["id"])
        assert session.scalars(select(func.count()).select_from(model)).one() == len((row, first, second))
    text = FULL[TextSummary]
    assert search(session, text["embedding"], client_id=text["client_id"], limit=1)
    for model in reversed(FULL):
        session.execute(delete(model))


def run_service(database: Database, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run this program as it is in the checkout `folder`."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "support.services"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}:{folder / 'tests'}", "DATABASE_URL": database.environment_url},
        capture_output=True,
        text=True,
        check=False,
    )


def run_service_before(revision: str, database: Database, folder: Path) -> None:
    """Run the service of the commit before `revision` was added, in `folder`; it must succeed."""
    commit = _git("log", "--diff-filter=A", "--format=%H^", "--", f"alembic/versions/{revision}_*").strip() or "HEAD"
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "--extract", "--directory", str(folder)], input=archive, check=True)
    result = run_service(database, folder)
    assert result.returncode == 0, result.stderr


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    main()
