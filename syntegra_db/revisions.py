"""The revision that a database says it is at."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import Connection, Engine, String, column, select, table, text
from sqlalchemy.exc import ProgrammingError

from syntegra_db.connections import connect
from syntegra_db.errors import DatabaseAhead, DatabaseBehind, RevisionError
from syntegra_db.settings import describe_database

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from syntegra_db.migrations._options import MigrationOptions

VERSION_TABLE = "alembic_version"
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


def script_location() -> Path:
    """Return the folder of the revisions: inside the installed package, or beside it in a checkout."""
    packaged = Path(__file__).parent / "migrations" / "alembic"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "alembic"


def alembic_config(url: URL | None = None, options: MigrationOptions | None = None) -> Config:
    """Return Alembic's configuration for the database at `url`, by default the one that the settings name.

    The URL travels as an object: in an option of the configuration, a `%` in the password would be interpolated.
    """
    config = Config()
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    if url is not None:
        config.attributes["url"] = url
    if options is not None:
        config.attributes["options"] = options
    return config


@cache
def script_directory() -> ScriptDirectory:
    """Return the revisions of this package."""
    return ScriptDirectory.from_config(alembic_config())


def head_revision() -> str:
    """Return the newest revision of this package, such as `003`."""
    head = script_directory().get_current_head()
    if head is None:
        raise RuntimeError(f"There is no revision in {script_location()}; the package is not whole: install it again.")
    return head
