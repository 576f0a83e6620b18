"""Engines and sessions for services, sync and async."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import psycopg
import sqlalchemy
from sqlalchemy import BindParameter, Engine, Insert, Update, event
from sqlalchemy.exc import CompileError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.sql.visitors import iterate

from syntegra_db import settings
from syntegra_db.binary_vectors import enable_binary_vectors
from syntegra_db.connections import APPLICATION_NAME, ENGINE_OPTIONS, connect_args, secure_first_connection
from syntegra_db.errors import RowOfOtherClient, SettingsError
from syntegra_db.models import Base
from syntegra_db.network import watch_connections
from syntegra_db.settings import PREPARE_THRESHOLD
from syntegra_db.sql import quote_all_keywords
from syntegra_db.timestamps import load_nearest_timestamps

if TYPE_CHECKING:
    from sqlalchemy.engine import URL
    from sqlalchemy.engine.interfaces import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

INSUFFICIENT_PRIVILEGE = "42501"
# The server's function that checks rows against policies; its messages may be in any language.
CHECKS_POLICIES = "ExecWithCheckOptions"
POLICY = "row-level security policy"
# The last name in quotes; languages quote differently.
LAST_QUOTED_NAME = re.compile(r"""["«„“']([^"»“”'«„]+)["»“”'][^"»“”'«„]*\Z""")

POOL_OPTIONS = {
    "pool_pre_ping": True,
    "pool_size": 5,
    "max_overflow": 10,
    "pool_timeout": 30,
    # Parameters hold clients' data and credentials, which must not reach logs and errors.
    "hide_parameters": True,
}


def create_engine(
    url: URL | str | None = None,
    *,
    application_name: str = APPLICATION_NAME,
    pooler: Literal["transaction"] | None = None,
    **options: Any,
) -> Engine:
    """Return an engine whose connections send and receive embeddings in binary format.

    They read a timestamp that Python cannot represent, such as infinity, as the nearest `datetime` in UTC, and dates
    and floats whatever formats the role or database sets.

    Args:
        url: where the database is; by default from the environment and `.env` (`syntegra_db.settings`).
        application_name: shown in `pg_stat_activity`; one in the URL takes precedence.
        pooler: `transaction` behind a pooler such as PgBouncer in transaction mode: no statement is prepared. The
            option `prepare_threshold=0` of the URL does the same.
        options: for `sqlalchemy.create_engine`. The defaults are a pool of 5 connections and at most 10 more, pinged
            before use, 30 s to wait for one and 10 s to open one, and no parameters in errors.

    Raises:
        SettingsError: a setting that names the database is invalid.
    """
    target = _resolve_url(url)
    engine = sqlalchemy.create_engine(target, **_engine_options(target, application_name, pooler, options))
    _equip(engine)
    return engine


def create_async_engine(
    url: URL | str | None = None,
    *,
    application_name: str = APPLICATION_NAME,
    pooler: Literal["transaction"] | None = None,
    **options: Any,
) -> AsyncEngine:
    """Return the asyncio counterpart of `create_engine`: same arguments, defaults and errors."""
    from sqlalchemy.ext import asyncio

    target = _resolve_url(url)
    engine = asyncio.create_async_engine(target, **_engine_options(target, application_name, pooler, options))
    _equip(engine.sync_engine)
    return engine


def session_factory(engine: Engine) -> sessionmaker[Session]:
    """Return a session factory; its objects stay readable after a commit."""
    return sessionmaker(engine, expire_on_commit=False)


def async_session_factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Return an asyncio session factory; its objects stay readable after a commit."""
    from sqlalchemy.ext.asyncio import async_sessionmaker

    return async_sessionmaker(engine, expire_on_commit=False)


def _equip(engine: Engine) -> None:
    quote_all_keywords(engine.dialect)
    secure_first_connection(engine)
    enable_binary_vectors(engine)
    watch_connections(engine)
    load_nearest_timestamps(engine)
    event.listen(engine, "before_execute", _reject_unknown_keys)
    event.listen(engine, "handle_error", _redact_error_detail)
    event.listen(engine, "handle_error", _name_row_of_other_client)


def _resolve_url(url: URL | str | None) -> URL:
    if url is None:
        return settings.database_url()
    return settings.parse_url(url)


def _engine_options(url: URL, application_name: str, pooler: str | None, options: dict[str, Any]) -> dict[str, Any]:
    if pooler not in {None, "transaction"}:
        raise SettingsError("The argument pooler is 'transaction' or None.")
    merged: dict[str, Any] = {**ENGINE_OPTIONS, **POOL_OPTIONS, **options}
    if "poolclass" in options:
        for name in {"pool_size", "max_overflow", "pool_timeout"} - options.keys():
            del merged[name]
    merged["connect_args"] = {
        **connect_args(url, application_name),
        **({PREPARE_THRESHOLD: None} if pooler else {}),
        **options.get("connect_args", {}),
    }
    return merged


def _reject_unknown_keys(
    _connection: Any, statement: Any, multiparams: Any, params: Any, _execution_options: Any
) -> None:
    """Raise `CompileError` if rows for one of the tables have a key that is not a column.

    SQLAlchemy does so for `values()`, and ignores such a key in a list of rows: `metadata_` would store NULL.
    """
    if not isinstance(statement, Insert | Update) or statement.table not in Base.metadata.tables.values():
        return
    row = multiparams[0] if multiparams else params
    unknown = set(row).difference(statement.table.columns.keys())
    if unknown:
        unknown.difference_update(element.key for element in iterate(statement) if isinstance(element, BindParameter))
    if unknown:
        raise CompileError(f"Unconsumed column names: {', '.join(sorted(unknown))}")


def _redact_error_detail(context: ExceptionContext) -> None:
    """Keep only the server's first line, because the others quote rows; `orig.diag` keeps them."""
    error = context.original_exception
    if isinstance(error, psycopg.Error) and error.diag.message_primary is not None:
        error.args = (error.diag.message_primary,)
        if context.sqlalchemy_exception is not None:
            context.sqlalchemy_exception.args = (f"({type(error).__name__}) {error}",)


def _name_row_of_other_client(context: ExceptionContext) -> RowOfOtherClient | None:
    """Return the package's error for a row that a policy rejects, and None for any other error."""
    error = context.original_exception
    if not isinstance(error, psycopg.Error) or error.sqlstate != INSUFFICIENT_PRIVILEGE:
        return None
    message = error.diag.message_primary or ""
    # Citus reports an error of a worker with its message, but from a function of Citus.
    if error.diag.source_function != CHECKS_POLICIES and POLICY not in message:
        return None
    name = LAST_QUOTED_NAME.search(message)
    return RowOfOtherClient(
        f"A row for the table {name[1] if name else '(unknown)'} has a client_id that is not the client set in this "
        "transaction, or no client is set; the server stored nothing of this statement. Write it inside "
        "`with client(session, …):` of the client that it names, or use a login of the administrators' group.",
        sqlstate=INSUFFICIENT_PRIVILEGE,
    )
