"""Check that a database is at the newest revision."""

from __future__ import annotations

from sqlalchemy import Connection, Engine

from syntegra_db.connections import connect
from syntegra_db.errors import DatabaseBehind
from syntegra_db.revisions import current_revision, describe_revision, head_revision, require_known_revision
from syntegra_db.settings import describe_database


def require_head(bind: Engine | Connection) -> None:
    """Raise unless the database is at this package's newest revision; services call it when they start.

    With an asyncio engine: `async with engine.connect() as connection: await connection.run_sync(require_head)`.

    Raises:
        DatabaseBehind: it is at an older revision, or at no revision; the message says what to run.
        DatabaseAhead: it is at a revision that this package does not know.
        ConnectionFailed: no connection could be opened; one of its subclasses says why.
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
            f"The {describe_database(bind.engine.url)} is at {describe_revision(revision)}, but revision "
            f"{head} is required. Run `syntegra-db upgrade head`."
        )
