"""Why a revision failed: the server's reason, or a bug in the revision."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg.errors import (
    DependentObjectsStillExist,
    DuplicateObject,
    DuplicateTable,
    InsufficientPrivilege,
    UndefinedObject,
)
from sqlalchemy.exc import DBAPIError

from syntegra_db.catalog import unversioned_objects, who_may_change_tables
from syntegra_db.errors import ExtensionUnavailable, MigrationFailed, SyntegraDBError, server_message
from syntegra_db.revision_files import script_location
from syntegra_db.revisions import describe_revision
from syntegra_db.search_path import read_session, search_path_fix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from syntegra_db.search_path import Session


def to_migration_failed(connection: Connection, target: str | None, error: DBAPIError, state: str) -> MigrationFailed:
    """Return the error for a run that the server ended: the reason, the sentence `state`, and what to do.

    What to do is in the notes of `error` if its step knows it.
    """
    reason, session = server_message(error), read_session(connection)
    server_hint = getattr(getattr(error.orig, "diag", None), "message_hint", None)
    known_hint = " ".join(getattr(error, "__notes__", ())) or server_hint
    hint = known_hint or "Correct the cause and run this again."
    if isinstance(error.orig, DependentObjectsStillExist):
        # Not the server's hint, CASCADE, which would drop objects of other applications.
        hint = f"Other objects depend on it: {error.orig.diag.message_detail}. Ask their owner to drop them first."
    elif isinstance(error.orig, DuplicateTable | DuplicateObject) and (names := unversioned_objects(connection)):
        hint = f"Created outside migrations: {', '.join(names)}. Run `syntegra-db adopt`, which keeps every row."
    elif isinstance(error.orig, UndefinedObject) and (schema := _extension_schema_off_path(session)):
        fix = search_path_fix(session, *session.path_items(), schema)
        hint = f"Add it and run this again: {fix.removeprefix('-- ')}"
    elif (
        isinstance(error.orig, InsufficientPrivilege)
        and not known_hint
        and (who_may := who_may_change_tables(connection))
    ):
        hint = who_may
    kind = ExtensionUnavailable if "the extension vector" in reason else MigrationFailed
    return kind(f"Migrating to {describe_revision(target)} failed: {reason}. {state} {hint}")


def _extension_schema_off_path(session: Session) -> str | None:
    schema = session.extension_schema
    return schema if schema not in session.schemas else None


@contextmanager
def describe_bugs(describe_state: Callable[[], str]) -> Iterator[None]:
    """Raise an exception of Python code in a revision as `MigrationFailed`, which names the place of the bug.

    `describe_state` ends the open transaction and returns the sentence that says what is committed. The text of the
    exception is left out, because it can contain rows.
    """
    try:
        yield
    except (DBAPIError, SyntegraDBError):
        raise
    except Exception as error:
        place = _place_in_revision(error)
        if place is None:
            raise
        raise MigrationFailed(
            f"{type(error).__name__} in {place.filename}, line {place.lineno}: {describe_state()} Correct the revision "
            "and run this again."
        ) from error


def _place_in_revision(error: Exception) -> traceback.FrameSummary | None:
    """Return the innermost line of a revision that led to `error`, or None if no revision did."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return next((frame for frame in frames if Path(frame.filename).parent == script_location() / "versions"), None)
