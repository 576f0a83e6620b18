"""Run Alembic from Python: upgrade, downgrade, or either inside the caller's transaction."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from syntegra_db.errors import RevisionError
from syntegra_db.migrations._config import MigrationRequest, alembic_config
from syntegra_db.revisions import list_revisions

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

    from syntegra_db.migrations._options import MigrationOptions
    from syntegra_db.recorded_steps import Direction

# Alembic keeps the running environment in module globals: two migrations at once in a process break each other.
_alembic_lock = threading.Lock()


def upgrade(
    revision: str = "head",
    url: URL | Engine | None = None,
    options: MigrationOptions | None = None,
    *,
    schema: str | None = None,
    contract: bool = False,
) -> str | None:
    """Upgrade the database at `url`, by default the one that the settings name, and return the revision reached.

    The tables are in `schema`, by default in the first schema of the search_path. Unless `contract` is true, the
    upgrade stops before a revision on which code of the revision before does not work.

    Raises:
        RevisionError: there is no such revision, or the database is at one that this package does not know.
        TablesInOtherSchema: the search_path leads to a schema without tables, and another schema has them.
        LockTimeout: other sessions, or another migration, held a lock for longer than the options allow.
        ExtensionUnavailable: pgvector is missing, and this role cannot create it.
        UntrustedObject: another role created a function, operator or type that a revision could call.
        MigrationFailed: a revision failed; the message says which revision the database is at.
        ConnectionFailed: no connection could be opened; one of its subclasses says why.
    """
    return _run("upgrade", revision, MigrationRequest(url, options, "upgrade", schema, contract))


def downgrade(revision: str, url: URL | Engine | None = None, options: MigrationOptions | None = None) -> str | None:
    """Downgrade the database to `revision`, or `base`, and return it; the rows of the dropped tables are lost.

    Raises:
        RevisionError, LockTimeout, UntrustedObject, MigrationFailed, ConnectionFailed: see `upgrade`.
    """
    return _run("downgrade", revision, MigrationRequest(url, options, "downgrade"))


def run_in_transaction(connection: Connection, direction: Direction, revision: str) -> None:
    """Upgrade or downgrade to `revision` inside the open transaction of `connection`, without locks or retries.

    Raises:
        RevisionError: there is no such revision.
        UntrustedObject: see `upgrade`.
        DBAPIError: a statement failed; the transaction is the caller's to roll back.
    """
    _run(direction, revision, MigrationRequest(connection))


def _run(direction: Direction, revision: str, request: MigrationRequest) -> str | None:
    from alembic import command
    from alembic.util import CommandError

    if not revision:
        raise RevisionError(f"The revision is empty. {list_revisions()}")
    with _alembic_lock:
        try:
            getattr(command, direction)(alembic_config(request), revision)
        except CommandError as error:
            raise RevisionError(f"{error}. {list_revisions()}") from None
    return request.reached
