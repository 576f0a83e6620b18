"""Which revisions exist, and which one a database is at."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from alembic.script import ScriptDirectory
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import Connection, String, column, select, table, text
from sqlalchemy.exc import ProgrammingError

from syntegra_db.errors import DatabaseAhead, RevisionError
from syntegra_db.sql import quote

VERSION_TABLE = "alembic_version"
RELATIVE = re.compile(r"(?P<start>\w+)?(?P<steps>[+-]\d+)")
SELECT_VERSIONS = select(column("version_num", String)).select_from(table(VERSION_TABLE)).order_by("version_num")
FIND_VERSION_TABLE = text(
    "SELECT to_regclass(quote_ident(current_schema()) || '.' || quote_ident(CAST(:name AS text))) IS NOT NULL, "
    "current_user"
)


def current_revision(connection: Connection) -> str | None:
    """Return the revision of the database's current schema, or None if no revision was applied.

    Only the current schema counts: a version table in another schema of the search path belongs to another application.

    Raises:
        RevisionError: the version table holds several revisions, or this role cannot read it.
    """
    has_version_table, role = connection.execute(FIND_VERSION_TABLE, {"name": VERSION_TABLE}).one()
    if not has_version_table:
        return None
    try:
        revisions = connection.scalars(SELECT_VERSIONS).all()
    except ProgrammingError as error:
        if not isinstance(error.orig, InsufficientPrivilege):
            raise
        raise RevisionError(
            f"This role cannot read {VERSION_TABLE}; ask its owner to run: GRANT SELECT ON {VERSION_TABLE} TO "
            f"{quote(role)};"
        ) from None
    if len(revisions) > 1:
        raise RevisionError(
            f"{VERSION_TABLE} holds {' and '.join(revisions)}, which happens when a dump is restored over a migrated "
            "database. Restore the dump into an empty database, or delete the row that does not match the tables."
        )
    return revisions[0] if revisions else None


def require_known_revision(revision: str | None) -> None:
    """Raise `DatabaseAhead` unless this package contains `revision`; None passes.

    Raises:
        DatabaseAhead: the revision is unknown.
    """
    known = {script.revision for script in script_directory().walk_revisions()}
    if revision is not None and revision not in known:
        raise DatabaseAhead(
            f"The database is at revision {revision}, which this package does not know: its newest is "
            f"{head_revision()}. Install the syntegra-db that the database was migrated with, or a newer one."
        )


def script_location() -> Path:
    """Return the directory of the revisions: inside the installed package, or next to it in a checkout."""
    packaged = Path(__file__).parent / "migrations" / "alembic"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "alembic"


@cache
def script_directory() -> ScriptDirectory:
    """Return Alembic's script directory of this package, read once."""
    return ScriptDirectory(str(script_location()))


def all_revisions() -> list[str]:
    """Return the revisions of this package, oldest first."""
    return [script.revision for script in reversed(list(script_directory().walk_revisions()))]


def resolve_revision(target: str | None, current: str | None) -> str | None:
    """Resolve Alembic's revision identifier `target` for a database at revision `current`.

    `target` is an id, `head`, `base` or None, or relative, such as `-1` or `003-1`. Steps beyond the first or the
    newest revision stop there. Return None for `base`.

    Raises:
        RevisionError: there is no such revision.
    """
    known = [None, *all_revisions()]
    relative = RELATIVE.fullmatch(target or "")
    start = (relative["start"] or current) if relative else target
    aliases = {"base": None, "head": known[-1], "heads": known[-1]}
    revision = aliases.get(start, start) if start else None
    if revision not in known:
        raise RevisionError(f"There is no revision {revision}. `alembic history` lists the revisions.")
    steps = int(relative["steps"]) if relative else 0
    return known[min(max(0, known.index(revision) + steps), len(known) - 1)]


def describe_revision(revision: str | None) -> str:
    """Return `revision 003`, or `no revision` for None."""
    return f"revision {revision}" if revision else "no revision"


def head_revision() -> str:
    """Return the newest revision of this package, such as `003`."""
    head = script_directory().get_current_head()
    if head is None:
        raise RuntimeError(f"There is no revision in {script_location()}; the package is incomplete: install it again.")
    return head
