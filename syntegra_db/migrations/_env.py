"""The body of Alembic's env.py: configure Alembic for this package, offline and online."""

from __future__ import annotations

import logging
from functools import partial
from logging.config import fileConfig
from typing import TYPE_CHECKING, Any

from alembic import command
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from syntegra_db import settings
from syntegra_db.catalog import require_no_tables_elsewhere
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import MigrationFailed, SettingsError, SyntegraDBError, server_message
from syntegra_db.interruption import describe_interruption, exit_status, termination_signals
from syntegra_db.migrations._comparison import comparison_options
from syntegra_db.migrations._config import MigrationRequest
from syntegra_db.migrations._failures import describe_bugs
from syntegra_db.migrations._lock import current_schema
from syntegra_db.migrations._phases import record_compatibility
from syntegra_db.migrations._runner import migrate
from syntegra_db.migrations.online import migrations_function, run_inside_transaction
from syntegra_db.network import psycopg_connection
from syntegra_db.recorded_steps import require_no_unfinished_revision
from syntegra_db.revisions import VERSION_TABLE, current_revision, has_version_table
from syntegra_db.search_path import declared_search_path, require_schema_name, with_schema
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from sqlalchemy import MetaData
    from sqlalchemy.engine import URL

    from syntegra_db.recorded_steps import Direction

logger = logging.getLogger(__name__)


def run_env(context: ModuleType, models_metadata: Callable[[], MetaData]) -> None:
    """Run the Alembic command that `context` (the module `alembic.context`) was set up for.

    Under the `alembic` command line, an error of this package becomes one line and its exit status. A Python caller
    gets the exception, and its logging is not changed.
    """
    config = context.config
    if config.cmd_opts is None:
        _run(context, models_metadata)
        return
    if config.config_file_name is not None:
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    try:
        with termination_signals():
            _run(context, models_metadata)
    except SyntegraDBError as error:
        logger.error("%s", error)  # noqa: TRY400  an operator needs the message, not a traceback
        raise SystemExit(error.exit_status) from None
    except KeyboardInterrupt as interruption:
        logger.warning("%s", describe_interruption(interruption))
        raise SystemExit(exit_status(interruption)) from None


def _run(context: ModuleType, models_metadata: Callable[[], MetaData]) -> None:
    configure = partial(context.configure, version_table=VERSION_TABLE, transaction_per_migration=True)
    arguments = context.get_x_argument(as_dictionary=True)
    schema = arguments.get("schema")
    if context.is_offline_mode():
        if schema is not None:
            require_schema_name(schema)
            raise SettingsError(
                "The SQL names no schema, so it takes no -x schema. Set it in the session that runs the file: "
                f"SET search_path = {quote(schema)};"
            )
        # The default paramstyle would double a percent sign.
        configure(
            dialect_name="postgresql",
            dialect_opts={"paramstyle": "named"},
            literal_binds=True,
            on_version_apply=record_compatibility,
        )
        _run_migrations(context)
        return
    request = MigrationRequest.from_config(context.config)
    request.schema = request.schema if schema is None else schema
    request.contract = request.contract or arguments.get("contract") == "yes"
    if context.config.cmd_opts is not None:
        directions: dict[Any, Direction] = {command.upgrade: "upgrade", command.downgrade: "downgrade"}
        request.direction = directions.get(context.config.cmd_opts.cmd[0])
    if isinstance(request.bind, Connection):
        _run_on_connection(context, configure, request.bind, models_metadata)
        return
    with connect(with_schema(_engine(request.bind), request.schema)) as connection:
        configure = partial(configure, connection=connection, version_table_schema=current_schema(connection))
        connection.rollback()
        if changes_revision(context):
            migrate(context, connection, configure, request)
        else:
            if current_revision(connection) is None:
                require_no_tables_elsewhere(connection)
            connection.rollback()
            with declared_search_path(connection, for_comparison=True):
                _run_inspection(context, configure, connection, models_metadata())


def _run_on_connection(
    context: ModuleType, configure: partial[None], connection: Connection, models_metadata: Callable[[], MetaData]
) -> None:
    """Run the command on a caller's connection: in its open transaction, or else commit each revision, as Alembic does.

    Alembic would take the transaction that reading the schema begins for the caller's, and commit nothing.

    Raises:
        MigrationFailed: the connection is in autocommit, where a failed revision would be half applied.
        TablesInOtherSchema: see `require_no_tables_elsewhere`.
        RevisionError: a revision is unfinished.
    """
    if psycopg_connection(connection).autocommit:
        raise MigrationFailed(
            "The connection is in AUTOCOMMIT, where a revision that fails is not rolled back; nothing was changed. "
            "Pass a connection with another isolation level."
        )
    is_in_transaction = connection.in_transaction()
    schema = current_schema(connection)
    is_migration = changes_revision(context)
    if is_migration:
        require_no_unfinished_revision(connection)
        if current_revision(connection) is None:
            require_no_tables_elsewhere(connection)
    if not is_in_transaction:
        connection.rollback()
    configure = partial(configure, connection=connection, version_table_schema=schema)
    with declared_search_path(connection, for_comparison=not is_migration):
        if is_migration:
            function = run_inside_transaction(migrations_function(context), connection)
            configure(fn=function, on_version_apply=record_compatibility)
            with describe_bugs(lambda: "Its transaction is not committed."):
                _run_migrations(context, connection)
        else:
            _run_inspection(context, configure, connection, models_metadata())


def _engine(bind: URL | Engine | None) -> Engine:
    if isinstance(bind, Engine):
        return bind
    return unpooled_engine(bind or settings.database_url(), application_name="syntegra_db migration")


def _run_inspection(context: ModuleType, configure: partial[None], connection: Connection, metadata: MetaData) -> None:
    """Run a command that changes nothing.

    Only it loads the models, whose naming convention must not affect the revisions.
    """
    configure(**comparison_options(connection, metadata))
    try:
        _run_migrations(context, connection)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        raise MigrationFailed(
            f"Alembic cannot compare this database: {server_message(error)}. `syntegra-db verify` names what differs."
        ) from error


def _run_migrations(context: ModuleType, connection: Connection | None = None) -> None:
    with context.begin_transaction():
        if connection is not None:
            # Alembic reads the version table without a check.
            has_version_table(connection)
        context.run_migrations()


def changes_revision(context: ModuleType) -> bool:
    """Return whether the command takes the database to another revision."""
    try:
        context.get_revision_argument()
    except KeyError:
        return False
    return True
