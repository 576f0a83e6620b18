"""The search_path of sessions, so a statement calls no function, operator or type that another role created.

A transaction of a tool begins with the search_path `pg_catalog, pg_temp`, and its statements qualify the names of
tables and of what the extension `vector` provides. The revisions name no schema: they run in `declared_search_path`.
"""

from __future__ import annotations

import re
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote as quote_url

from sqlalchemy import TableClause, event, table, text

from syntegra_db.errors import SettingsError
from syntegra_db.sql import catalog_query, execute_raw, is_system_schema, qualify_name, quote, quote_name
from syntegra_db.trusted_objects import require_trusted_objects

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, Engine

CATALOG_ONLY = "pg_catalog, pg_temp"
# psycopg reads dates and intervals in one form only, and fewer digits would be another number.
FORMATS = {"DateStyle": "ISO", "IntervalStyle": "postgres", "extra_float_digits": "1"}
# What the tools parse, and the text of definitions, must not depend on the role or database.
SETTINGS = {
    **FORMATS,
    "bytea_output": "hex",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
}
SESSION_OPTION = "syntegra_db_session"
PATH_OPTION = "syntegra_db_search_path"
SESSION = catalog_query("""
    SELECT current_schema(), current_user, current_setting('search_path'), current_schemas(true),
           (SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
            WHERE extname = 'vector'),
           session_user, current_database(), (SELECT source FROM pg_settings WHERE name = 'search_path'), version()
""")
ROLE_ITEM = "$user"
PATH_ITEM = re.compile(r'"((?:[^"]|"")*)"|([^\s,]+)')
SET_SEARCH_PATH = text("SELECT pg_catalog.set_config('search_path', :path, true)")


class Session(NamedTuple):
    """The current schema and the role of a session, and the search_path with its existing schemas, when it was opened.

    `extension_schema` is the schema of the extension `vector`, or None. After SET ROLE, `role` differs from
    `login_role`. `source` is what set the search_path, as in `pg_settings`. `server` is its version and platform.
    `is_named` means that the schema is the translation of None, not the first one of the search_path.
    """

    schema: str | None
    role: str
    search_path: str
    schemas: list[str]
    extension_schema: str | None
    login_role: str
    database: str
    source: str
    server: str
    is_named: bool = False

    @property
    def notices_closed_connections(self) -> bool:
        """Whether the server accepts `client_connection_check_interval`: one that is not on Linux may not."""
        return "linux" in self.server

    def path_items(self) -> list[str]:
        """Return the names on the search_path as they are written, such as `$user`, without quotes."""
        items = PATH_ITEM.findall(self.search_path)
        names = (quoted.replace('""', '"') or _to_lower_case(plain) for quoted, plain in items)
        # An empty search_path is `""`.
        return [name for name in names if name]

    def path_schemas(self) -> list[str]:
        """Return the names on the search_path, existing or not, with the role for `$user`."""
        return [self.role if item == ROLE_ITEM else item for item in self.path_items()]

    def declared_schemas(self) -> list[str]:
        """Return the current schema, and that of the extension if it is on the search_path."""
        names = (self.schema, self.extension_schema if self.extension_schema in self.schemas else None)
        return [name for name in dict.fromkeys(names) if name]


def _to_lower_case(name: str) -> str:
    # The server keeps the case of other letters in UTF-8.
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


def secure_session(connection: Connection) -> None:
    """Let each transaction of `connection`, which is in autocommit, begin with `CATALOG_ONLY` and `SETTINGS`.

    The settings are local to the transaction, because a transaction-mode pooler gives the session to other clients.
    """
    session = read_session(connection)
    connection.rollback()
    connection.execution_options(
        schema_translate_map={None: session.schema} if session.schema else {},
        **{SESSION_OPTION: session, PATH_OPTION: CATALOG_ONLY},
    )
    event.listen(connection, "begin", _begin)


def _begin(connection: Connection) -> None:
    # No SELECT, which would take the snapshot of the transaction.
    is_autocommit = getattr(connection.connection.dbapi_connection, "autocommit", False)
    path = connection.get_execution_options()[PATH_OPTION]
    execute_raw(connection, set_statements({**SETTINGS, "search_path": path}, is_local=not is_autocommit))


def set_statements(settings: Mapping[str, str], *, is_local: bool) -> str:
    """Return the statements that set `settings`, whose values are SQL, for the transaction or else the session."""
    return "; ".join(f"SET {'LOCAL' if is_local else 'SESSION'} {name} TO {value}" for name, value in settings.items())


def read_session(connection: Connection) -> Session:
    """Return the session of `connection`; its schema is the one that the connection translates None to, if any."""
    options = connection.get_execution_options()
    session: Session | None = options.get(SESSION_OPTION)
    if session is None:
        session = Session(*connection.execute(SESSION).one())
        schema = (options.get("schema_translate_map") or {}).get(None)
        session = session._replace(schema=schema or session.schema, is_named=schema is not None)
    return session


def with_schema(engine: Engine, schema: str | None) -> Engine:
    """Return `engine` for the tables in `schema` instead of the first schema of the search_path, unless it is None.

    Raises:
        SettingsError: see `require_schema_name`.
    """
    if schema is None:
        return engine
    require_schema_name(schema)
    return engine.execution_options(schema_translate_map={None: schema})


def require_schema_name(schema: str) -> None:
    """Raise an error if no tables of this package can be in a schema of that name.

    Raises:
        SettingsError: the name is empty, that of one of PostgreSQL's own schemas, or `$user`, which means the role.
    """
    if not schema:
        raise SettingsError("The name of the schema is empty. Give a name, or omit the option.")
    if schema == ROLE_ITEM:
        raise SettingsError(
            f"In a search_path, {schema} means the role, so no schema can have that name. Name another one."
        )
    if is_system_schema(schema):
        raise SettingsError(
            f"Schema {quote(schema)} belongs to PostgreSQL itself, so no tables can be created in it. Name another one."
        )


def search_path_fix(session: Session, *schemas: str) -> str:
    """Return the statement that gives new sessions a search_path of `schemas`; a comment if the client sets the path.

    A setting of the role in the database has precedence over all but the client's.
    """
    path = ", ".join(quote(name) for name in dict.fromkeys(schemas))
    if session.source == "session":
        return f"SET search_path = {path};"
    if session.source == "client":
        # libpq splits the options at blanks.
        names = ",".join(quote_name(name) for name in dict.fromkeys(schemas))
        option = "-csearch_path=" + re.sub(r"([\\\s])", r"\\\1", names)
        in_url = f"-- Replace the search_path in the URL: options={quote_url(option, safe='')};"
        if not option.isprintable():
            return in_url
        return f'{in_url} or in the environment: export PGOPTIONS="$PGOPTIONS "{shlex.quote(option)}'
    reset = "" if session.role == session.login_role else "SET ROLE NONE; "
    role, database = quote(session.login_role), quote(session.database)
    return f"{reset}ALTER ROLE {role} IN DATABASE {database} SET search_path = {path};"


def table_name(connection: Connection, name: str) -> str:
    """Return the quoted name of a table or index, with the schema of `schema_of` if any."""
    return qualify_name(schema_of(connection), name)


def table_clause(connection: Connection, name: str) -> TableClause:
    """Return `table_name` for statements of SQLAlchemy, which translates the schema of models only."""
    return table(name, schema=schema_of(connection))


def extension_schema(connection: Connection) -> str | None:
    """Return the schema of the extension `vector` if the connection has `secure_session`, else None."""
    session: Session | None = connection.get_execution_options().get(SESSION_OPTION)
    return session.extension_schema if session else None


def format_search_path(*schemas: str | None) -> str:
    """Return a search_path with `schemas` except None, and the temporary schema last, where it hides no table."""
    return ", ".join(quote_name(name) for name in dict.fromkeys([*schemas, "pg_temp"]) if name)


def schema_of(connection: Connection) -> str | None:
    """Return the schema that statements on `connection` must name: that of `secure_session` or of a translation."""
    options = connection.get_execution_options()
    session: Session | None = options.get(SESSION_OPTION)
    return session.schema if session else (options.get("schema_translate_map") or {}).get(None)


@contextmanager
def declared_search_path(connection: Connection, *, for_comparison: bool = False) -> Iterator[None]:
    """Use the search_path that the revisions are written for inside the block: the current schema and the extension's.

    The extension's schema is added only `for_comparison` if the session does not have it on its path: SQLAlchemy knows
    `vector`, but not `public.vector`.

    Raises:
        UntrustedObject: another role created a function, operator or type there that they could call.
    """
    options = connection.get_execution_options()
    is_secured = options.get(SESSION_OPTION) is not None
    was_in_transaction = connection.in_transaction()
    session = read_session(connection)
    before = options.get(PATH_OPTION) or session.search_path
    schemas = session.declared_schemas()
    if for_comparison and session.extension_schema:
        schemas = list(dict.fromkeys([*schemas, session.extension_schema]))
    path = format_search_path(*schemas)
    if before == path:
        yield
        return
    connection.execute(SET_SEARCH_PATH, {"path": CATALOG_ONLY})
    require_trusted_objects(connection, schemas)
    if was_in_transaction:
        connection.execute(SET_SEARCH_PATH, {"path": path})
    else:
        connection.rollback()
    restored = {PATH_OPTION: options.get(PATH_OPTION), "schema_translate_map": options.get("schema_translate_map", {})}
    connection.execution_options(schema_translate_map={}, **{PATH_OPTION: path})
    if not is_secured:
        event.listen(connection, "begin", _begin)
    try:
        yield
    finally:
        connection.execution_options(**restored)
        if not is_secured:
            event.remove(connection, "begin", _begin)
    if connection.in_transaction() and not connection.invalidated:
        # After an error, the caller rolls back to a savepoint or to the beginning, which restores it.
        connection.execute(SET_SEARCH_PATH, {"path": before})
