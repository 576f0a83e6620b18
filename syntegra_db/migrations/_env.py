"""What Alembic's env.py does: configure Alembic for this package, offline and online alike."""

from __future__ import annotations

import logging
from functools import partial
from logging.config import fileConfig
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from syntegra_db import settings
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import EXIT_INTERRUPTED, MigrationFailed, SyntegraDBError
from syntegra_db.migrations import _runner
from syntegra_db.migrations._options import load_migration_options
from syntegra_db.revisions import VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import ModuleType

    from sqlalchemy import MetaData

logger = logging.getLogger(__name__)


def run_env(context: ModuleType, models_metadata: Callable[[], MetaData]) -> None:
    """Run the Alembic command that `context` (the module `alembic.context`) stands for.

    Under the `alembic` command line, an error of this package becomes one line and its exit status; a Python
    caller gets the exception, and its logging is left alone.
    """
    config = context.config
    if config.cmd_opts is None:
        _run(context, models_metadata)
        return
    if config.config_file_name is not None:
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    try:
        _run(context, models_metadata)
    except SyntegraDBError as error:
        logger.error("%s", error)  # noqa: TRY400  the sentence is for an operator, a traceback is not
        raise SystemExit(error.exit_status) from None
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None


def _run(context: ModuleType, models_metadata: Callable[[], MetaData]) -> None:
    configure = partial(context.configure, version_table=VERSION_TABLE, transaction_per_migration=True)
    if context.is_offline_mode():
        configure(dialect_name="postgresql", literal_binds=True)
        _run_migrations(context)
        return
    bind = context.config.attributes.get("connection")
    if isinstance(bind, Connection):
        # The transaction is the caller's, who commits it, waits and tries again as they like.
        configure(connection=bind, version_table_schema=current_schema(bind))
        _run_migrations(context)
        return
    url = context.config.attributes.get("url")
    engine = bind or unpooled_engine(url or settings.database_url(), application_name="syntegra_db migration")
    with connect(engine) as connection:
        schema = current_schema(connection)
        connection.rollback()
        configure = partial(configure, connection=connection, version_table_schema=schema)
        if changes_revision(context):
            options = context.config.attributes.get("options") or load_migration_options()
            _runner.migrate(context, connection, configure, schema, options)
        else:
            _run_inspection(context, configure, models_metadata())


def _run_inspection(context: ModuleType, configure: partial[None], metadata: MetaData) -> None:
    """Run a command that changes nothing; only a comparison sees the models, whose names must not reach revisions."""
    configure(
        target_metadata=metadata, compare_server_default=True, include_name=partial(_include_name, metadata.tables)
    )
    try:
        _run_migrations(context)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        reason = str(error.orig).partition("\n")[0]
        raise MigrationFailed(
            f"Alembic fails on what it finds ({reason}). `syntegra-db verify` names what differs."
        ) from error


def _run_migrations(context: ModuleType) -> None:
    with context.begin_transaction():
        context.run_migrations()


def changes_revision(context: ModuleType) -> bool:
    """Tell whether the command takes the database to another revision, rather than looking at it."""
    try:
        context.get_revision_argument()
    except KeyError:
        return False
    return True


def current_schema(connection: Connection) -> str:
    """Return the schema that new tables go to: the first one of the search path that exists.

    Raises:
        MigrationFailed: none of them does.
    """
    schema: str | None = connection.scalar(text("SELECT current_schema()"))
    if schema is None:
        path = connection.scalar(text("SHOW search_path"))
        raise MigrationFailed(f"No schema of the search_path ({path}) exists; create one: CREATE SCHEMA …;")
    return schema


def _include_name(tables: Collection[str], name: str | None, kind: str, _parents: dict[str, Any]) -> bool:
    """Keep the application's tables out of `alembic check`."""
    return kind != "table" or name in tables
