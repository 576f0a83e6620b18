"""The revision that a database says it is at."""

from __future__ import annotations

from psycopg.errors import InsufficientPrivilege
from sqlalchemy import Connection, Engine, String, column, select, table, text
from sqlalchemy.exc import ProgrammingError

from syntegra_db.connections import connect
from syntegra_db.errors import DatabaseAhead, DatabaseBehind, RevisionError
from syntegra_db.migrations.config import VERSION_TABLE, head_revision, script_directory
from syntegra_db.settings import describe_database

SELECT_VERSIONS = select(column("version_num", String)).select_from(table(VERSION_TABLE)).order_by("version_num")
VERSION_TABLE_EXISTS = text(
    "SELECT to_regclass(quote_ident(current_schema()) || '.' || quote_ident(CAST(:name AS text))) IS NOT NULL"
)


def current_revision(connection: Connection) -> str | None:
    """Return the revision of the database's current schema, or None before 001.

    Only the current schema counts: a version table further along the search path is somebody else's.

    Raises:
        RevisionError: the version table holds several revisions, or this role may not read it.
    """
    if not connection.scalar(VERSION_TABLE_EXISTS, {"name": VERSION_TABLE}):
        return None
    try:
        revisions = connection.scalars(SELECT_VERSIONS).all()
    except ProgrammingError as error:
        if not isinstance(error.orig, InsufficientPrivilege):
            raise
        raise RevisionError(
            f"This role may not read {VERSION_TABLE}; let its owner run: GRANT SELECT ON {VERSION_TABLE} TO "
            f"{connection.engine.url.username};"
        ) from None
    if len(revisions) > 1:
        raise RevisionError(
            f"{VERSION_TABLE} holds {' and '.join(revisions)}, as after a dump was restored over a migrated "
            "database; restore it into an empty one, or delete the row that does not match the tables."
        )
    return revisions[0] if revisions else None


def require_known_revision(revision: str | None) -> None:
    """Return if this package has `revision`, or if it is None.

    Raises:
        DatabaseAhead: it has not.
    """
    known = {script.revision for script in script_directory().walk_revisions()}
    if revision is not None and revision not in known:
        raise DatabaseAhead(
            f"The database is at revision {revision}, which this package does not know: its newest is "
            f"{head_revision()}. Install the syntegra-db that the database was migrated with, or a newer one."
        )


def require_head(bind: Engine | Connection) -> None:
    """Return if the database is at this package's newest revision; what a service calls when it starts.

    With an asyncio engine: `async with engine.connect() as connection: await connection.run_sync(require_head)`.

    Raises:
        DatabaseBehind: it is at an older revision, or at none; the message says what to run.
        DatabaseAhead: it is at a revision that this package does not know.
        ConnectionFailed: there is no connection; one of its subclasses says why.
    """
    if isinstance(bind, Engine):
        with connect(bind) as connection:
            require_head(connection)
        return
    revision = current_revision(bind)
    require_known_revision(revision)
    head = head_revision()
    if revision != head:
        raise DatabaseBehind(
            f"The {describe_database(bind.engine.url)} is at {f'revision {revision}' if revision else 'no revision'} "
            f"and this service needs {head}. Run `syntegra-db upgrade head`."
        )
