"""Settings of the database for searches by plain SQL, from the calibrations of its indexes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from syntegra_db.errors import RebuildFailed
from syntegra_db.models.embeddings import declared_embeddings
from syntegra_db.sql import catalog_query, literal, qualify, quote
from syntegra_db.vectors._index import SETTING_NAMES, read_primary_index
from syntegra_db.vectors._strategy import chosen_point
from syntegra_db.vectors.maintenance._build import run_with_retries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from syntegra_db.migrations import MigrationOptions
    from syntegra_db.models.embeddings import Method
    from syntegra_db.vectors._index import VectorIndex

# The order of the rows is exact with strict_order, which ivfflat does not have.
ITERATIVE_SCANS: dict[Method, str] = {"hnsw": "strict_order", "ivfflat": "relaxed_order"}
DATABASE_OWNER = catalog_query("""
    SELECT pg_has_role(datdba, 'USAGE') AS owns, pg_get_userbyid(datdba) AS owner, current_user AS role, datname AS name
    FROM pg_database WHERE datname = current_database()
""")
CURRENT_DEFAULTS = catalog_query("""
    SELECT split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1)
    FROM pg_db_role_setting JOIN pg_database ON pg_database.oid = setdatabase CROSS JOIN unnest(setconfig) AS setting
    WHERE setrole = 0 AND datname = current_database()
""")


@dataclass(frozen=True)
class SearchDefaults:
    """Settings with which plain SQL finds the rows that `search` finds; a role's own value takes precedence.

    `settings` are the values by name. `statements` store them for new sessions of the database, `undo` restores the
    values that they replace; both run as they are written, as the owner of the database. `is_stored` tells whether
    `statements` were run.
    """

    settings: dict[str, str]
    statements: tuple[str, ...]
    undo: tuple[str, ...]
    is_stored: bool = False


def require_database_ownership(connection: Connection) -> None:
    """Raise `RebuildFailed` unless the role may change the settings of the database."""
    database = connection.execute(DATABASE_OWNER).mappings().one()
    if not database["owns"]:
        raise RebuildFailed(
            f"Role {quote(database['role'])} does not own the database {quote(database['name'])}, so it cannot change "
            f"its settings; nothing was changed. Leave out --set-defaults, or connect as its owner, "
            f"{quote(database['owner'])}."
        )


def plan_defaults(connection: Connection) -> SearchDefaults | None:
    """Return the settings of all calibrated indexes, or None if no setting reaches the recall that was requested."""
    found = (read_primary_index(connection, embedding) for embedding in declared_embeddings())
    indexes = [index for index in found if index is not None]
    settings: dict[str, str] = {}
    for name, value in (pair for index in indexes for pair in _settings_of(index)):
        # Two indexes of one method share the setting; the larger one reaches the recall of both.
        settings[name] = max(settings.get(name, value), value, key=_as_number)
    if not settings:
        return None
    before = {name: value for name, value in connection.execute(CURRENT_DEFAULTS) if name in settings}
    database = quote(connection.execute(DATABASE_OWNER).mappings().one()["name"])
    loading = _load_library(indexes[0].extension_schema)
    store = (f"ALTER DATABASE {database} SET {name} = {literal(value)};" for name, value in settings.items())
    undo = (
        f"ALTER DATABASE {database} SET {name} = {literal(before[name])};"
        if name in before
        else f"ALTER DATABASE {database} RESET {name};"
        for name in settings
    )
    return SearchDefaults(settings, (loading, *store), (loading, *undo))


def store_defaults(connection: Connection, defaults: SearchDefaults, options: MigrationOptions) -> SearchDefaults:
    """Store the settings for new sessions of the database, and return them as stored.

    Raises:
        RebuildFailed: other sessions changed the settings of the database for longer than the options allow.
    """
    state = "The new index is in use and calibrated, but its settings were not stored in the database."
    statements = (statement.removesuffix(";") for statement in defaults.statements)
    run_with_retries(connection, *statements, options=options, state=state)
    return replace(defaults, is_stored=True)


def _settings_of(index: VectorIndex) -> Iterator[tuple[str, str]]:
    selected = chosen_point(index.current_calibration) if index.current_calibration else None
    if selected is None:
        return
    yield SETTING_NAMES[index.method], str(selected.setting)
    if index.has_iterative_scans:
        yield f"{index.method}.iterative_scan", ITERATIVE_SCANS[index.method]


def _as_number(value: str) -> int:
    return int(value) if value.isdigit() else 0


def _load_library(extension_schema: str) -> str:
    """Return a statement after which the server knows pgvector's settings; before, only a superuser may store them."""
    return f"SELECT '[1]'::{qualify(extension_schema, 'vector')};"
