"""Which revisions exist, and which one a database is at."""

from __future__ import annotations

import re
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.script import ScriptDirectory
from psycopg.errors import InsufficientPrivilege, UndefinedColumn, UndefinedTable
from sqlalchemy.exc import ProgrammingError

from syntegra_db.errors import DatabaseAhead, RevisionError
from syntegra_db.revision_files import script_location
from syntegra_db.search_path import read_session
from syntegra_db.sql import (
    ORDINARY_TABLE,
    RELATION_KIND,
    catalog_query,
    execute_raw,
    lock_for_reading,
    qualify,
    qualify_name,
    quote,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from syntegra_db.search_path import Session

VERSION_TABLE = "alembic_version"
REVISION_ID = re.compile(r"\d{3}")
RELATIVE = re.compile(r"(?P<start>\w+)?(?P<steps>[+-]\d+)")
# As text, because the column may have been changed.
SELECT_VERSIONS = "SELECT CAST(version_num AS pg_catalog.text) FROM ONLY {table} ORDER BY 1"
# Whether a column is now what the query sees, which can be older: with REPEATABLE READ, the catalogs are those of the
# first statement, but names mean what they mean now.
IS_UNCHANGED = (
    "(pg_identify_object(pg_class.tableoid, attrelid, attnum)).identity = format('%I.%I.%I', nspname, relname, attname)"
    " AND relfilenode = pg_relation_filenode(attrelid)"
)
# In a schema of the search_path that the role may not use, the version table is hidden.
FIND_VERSION_TABLE = catalog_query(
    """
    SELECT (SELECT {relation_kind} FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
            WHERE nspname = :schema AND relname = :name),
           row_security_active(to_regclass(:table)),
           (SELECT bool_and({is_unchanged})
            FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
              JOIN pg_namespace ON pg_namespace.oid = relnamespace
            WHERE nspname = :schema AND relname = :name AND attname = 'version_num' AND NOT attisdropped),
           (SELECT bool_and(typnamespace = 'pg_catalog'::regnamespace AND attgenerated::text = '')
            FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
            WHERE attrelid = to_regclass(:table) AND attname = 'version_num' AND NOT attisdropped),
           (SELECT min(nspname::text) FROM pg_namespace JOIN pg_class ON relnamespace = pg_namespace.oid
            WHERE relname = :name AND nspname = ANY (:path) AND NOT has_schema_privilege(pg_namespace.oid, 'USAGE'))
""".replace("{is_unchanged}", IS_UNCHANGED).replace("{relation_kind}", RELATION_KIND.format(relkind="relkind"))
)


def current_revision(connection: Connection) -> str | None:
    """Return the revision of the database's current schema, or None if no revision was applied.

    Only the current schema counts; `catalog.require_no_tables_elsewhere` finds the tables in another one.

    Raises:
        RevisionError: the version table holds several revisions, is not an ordinary table, or this role cannot read it.
    """
    if not has_version_table(connection):
        return None
    revisions = read_versions(connection)
    if len(revisions) > 1:
        if foreign := foreign_revisions(revisions):
            raise RevisionError(describe_foreign_revisions(foreign, read_session(connection).schema))
        raise RevisionError(
            f"{VERSION_TABLE} holds {' and '.join(revisions)}, which happens when a dump is restored over a migrated "
            "database. Restore the dump into an empty database, or delete the row that does not match the tables."
        )
    return revisions[0] if revisions else None


def has_version_table(connection: Connection) -> bool:
    """Return whether the current schema has a version table, which then stays as it is until the transaction ends.

    The connection must not be in AUTOCOMMIT: see `sql.one_transaction`.

    Raises:
        RevisionError: it is not an ordinary table, or a policy or a missing privilege hides it or its rows, or code of
            its owner would run to read its column. `trusted_tables` is about writing it.
    """
    session = read_session(connection)
    if not _check_version_table(connection, session):
        return False
    name = qualify(session.schema, VERSION_TABLE)
    try:
        lock_for_reading(connection, name)
    except ProgrammingError as error:
        if isinstance(error.orig, InsufficientPrivilege):
            raise _missing_privilege(session) from None
        if not isinstance(error.orig, UndefinedTable):
            raise
        raise RevisionError(f"{name} was dropped while this command read it. Run it again.") from None
    # It may have been replaced before the lock was granted.
    return _check_version_table(connection, session)


def _check_version_table(connection: Connection, session: Session) -> bool:
    name, role = qualify(session.schema, VERSION_TABLE), quote(session.role)
    text_name = qualify_name(session.schema, VERSION_TABLE)
    # A schema before the current one would be the current one if the role could use it.
    hiding = [] if session.is_named else takewhile(lambda schema: schema != session.schema, session.path_schemas())
    parameters = {"schema": session.schema, "name": VERSION_TABLE, "table": text_name, "path": list(hiding)}
    kind, hides_rows, is_unchanged, is_built_in, hidden_schema = connection.execute(
        FIND_VERSION_TABLE, parameters
    ).one()
    if kind is None:
        if hidden_schema is None:
            return False
        raise RevisionError(
            f"This role cannot read {VERSION_TABLE}, because it may not use schema {hidden_schema}; ask the owner of "
            f"the schema to run: GRANT USAGE ON SCHEMA {quote(hidden_schema)} TO {role};"
        )
    if kind != ORDINARY_TABLE:
        raise RevisionError(
            f"The {kind} {name} is not an ordinary table, so its content is not trusted. Find out who created it, and "
            "drop or rename it."
        )
    if is_unchanged is False:
        raise RevisionError(f"{name} was changed while this command read it. Run it again.")
    if hides_rows:
        raise RevisionError(
            f"Row-level security can hide the rows of {name} from this role; ask its owner to run: ALTER TABLE {name} "
            "DISABLE ROW LEVEL SECURITY;"
        )
    if is_built_in is False:
        raise RevisionError(
            f"The column version_num of {name} is generated or of a type that is not PostgreSQL's, so its content is "
            "not trusted. Find out who created it, and drop or rename the table."
        )
    return True


def read_versions(connection: Connection) -> list[str]:
    """Return the rows of the version table, which `has_version_table` found in this transaction.

    Raises:
        RevisionError: this role cannot read it, or its column is not Alembic's.
    """
    session = read_session(connection)
    name = qualify(session.schema, VERSION_TABLE)
    try:
        versions = list(execute_raw(connection, SELECT_VERSIONS.format(table=name)).scalars())
    except ProgrammingError as error:
        if isinstance(error.orig, UndefinedColumn):
            raise RevisionError(
                f"{name} has no column version_num, so Alembic did not create it. Rename its column back, or rename "
                f"the table if it belongs to another application: ALTER TABLE {name} RENAME TO application_version;"
            ) from None
        if not isinstance(error.orig, InsufficientPrivilege):
            raise
        raise _missing_privilege(session) from None
    if None in versions:
        raise RevisionError(
            f"{name} has a row without a revision. Delete it: DELETE FROM {name} WHERE version_num IS NULL;"  # noqa: S608  printed
        )
    return versions


def _missing_privilege(session: Session) -> RevisionError:
    return RevisionError(
        f"This role cannot read {VERSION_TABLE}; ask its owner to run: GRANT SELECT ON "
        f"{qualify(session.schema, VERSION_TABLE)} TO {quote(session.role)};"
    )


def foreign_revisions(revisions: Iterable[str]) -> list[str]:
    """Return those of `revisions` that no version of this package has: its ids have three digits."""
    return [revision for revision in revisions if not REVISION_ID.fullmatch(revision)]


def describe_foreign_revisions(revisions: Iterable[str], schema: str | None) -> str:
    """Return what is wrong with a version table of `schema` with `revisions` of another application, and what to do."""
    table = qualify(schema, VERSION_TABLE)
    return (
        f"{VERSION_TABLE} contains {' and '.join(revisions)}, a revision of another application's migrations, and two "
        f"histories cannot share one version table. Rename the application's table: ALTER TABLE {table} RENAME TO "
        "application_version; and set version_table='application_version' in its context.configure()."
    )


def require_known_revision(revision: str | None, schema: str | None, *, is_supported: bool | None = None) -> None:
    """Raise an error unless this package contains `revision`, read from `schema`; None passes.

    `is_supported`, if known, is whether services of this package work on it, which the message then says.

    Raises:
        DatabaseAhead: a newer version of this package has it.
        RevisionError: it belongs to another application.
    """
    if revision is not None and revision not in all_revisions():
        if foreign := foreign_revisions([revision]):
            raise RevisionError(describe_foreign_revisions(foreign, schema))
        support = {
            None: "",
            True: " Services of this package work on it, but its commands do not know it.",
            # A copy without the comment of the version table is the other reason.
            False: f" Services of this package do not work on it: after {head_revision()} is a contraction, or the "
            "database does not say that there is none.",
        }
        raise DatabaseAhead(
            f"The database is at revision {revision}, which this package does not know: its newest is "
            f"{head_revision()}.{support[is_supported]} Install the syntegra-db that the database was migrated with, "
            "or a newer one."
        )


def revision_file(revision: str) -> Path:
    """Return the file of `revision`, relative to the checkout."""
    return Path(script_directory().get_revision(revision).path).relative_to(script_location().parent)


@cache
def script_directory() -> ScriptDirectory:
    """Return Alembic's script directory of this package, read once."""
    return ScriptDirectory(str(script_location()))


def all_revisions() -> list[str]:
    """Return the revisions of this package, oldest first."""
    return [script.revision for script in reversed(list(script_directory().walk_revisions()))]


def position_of(revision: str | None) -> int:
    """Return the place of `revision` in the order of the revisions, which begins with 1; 0 for None."""
    return 0 if revision is None else all_revisions().index(revision) + 1


def revision_before(revision: str) -> str | None:
    """Return the revision before `revision`, or None for the first one."""
    return [None, *all_revisions()][position_of(revision) - 1]


def revision_path(before: str | None, after: str | None) -> list[str | None]:
    """Return `before`, the revisions on the way, and `after`, in the order of a migration between them."""
    start, end = position_of(before), position_of(after)
    known = [None, *all_revisions()]
    return known[start : end + 1] if start <= end else known[end : start + 1][::-1]


def resolve_revision(target: str | None, current: str | None) -> str | None:
    """Resolve Alembic's revision identifier `target` for a database at revision `current`.

    `target` is an id, `head`, `base` or None, or relative, such as `-1` or `003-1`. Return None for `base`.

    Raises:
        RevisionError: there is no such revision.
    """
    known = [None, *all_revisions()]
    relative = RELATIVE.fullmatch(target or "")
    start = (relative["start"] or current) if relative else target
    aliases = {"base": None, "head": known[-1], "heads": known[-1]}
    revision = aliases.get(start, start) if start else None
    if revision not in known:
        raise RevisionError(f"There is no revision {revision}. {list_revisions()}")
    position = known.index(revision) + (int(relative["steps"]) if relative else 0)
    if not 0 <= position < len(known):
        raise RevisionError(
            f"{target} leads beyond the revisions from {describe_revision(revision)}. {list_revisions()}"
        )
    return known[position]


def list_revisions() -> str:
    """Return a sentence that lists the revisions, for messages about one that does not exist."""
    return f"The revisions are {', '.join(all_revisions())}."


def describe_revision(revision: str | None) -> str:
    """Return `revision 003`, or `no revision` for None."""
    return f"revision {revision}" if revision else "no revision"


def head_revision() -> str:
    """Return the newest revision of this package, such as `003`."""
    head = script_directory().get_current_head()
    if head is None:
        raise RuntimeError(f"There is no revision in {script_location()}; the package is incomplete: install it again.")
    return head
