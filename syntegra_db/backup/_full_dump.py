"""A dump of the whole database before an adoption, when its tables are not those of a revision yet."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import select

from syntegra_db.backup._dump import run_pg_dump
from syntegra_db.backup._files import atomic_file, default_path
from syntegra_db.backup._pg_restore import list_archive
from syntegra_db.backup._session import server_version
from syntegra_db.client_programs import find_program_for_server
from syntegra_db.network import psycopg_connection

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

# Not the suffix of row backups, because `syntegra-db restore` cannot read it.
SUFFIX = ".pgdump"


def dump_database(connection: Connection) -> Path:
    """Write the whole database with pg_dump, compressed, to a new file in `backups/`, and return its path.

    Raises:
        BackupFailed: pg_dump failed, or the file cannot be written; no file was left.
        InvalidBackup: pg_restore cannot read the file; no file was left.
        ClientProgramNotFound: no pg_dump or pg_restore is as new as the server.
    """
    url = connection.engine.url
    program = find_program_for_server("pg_dump", server_version(connection), for_url=url)
    reader = find_program_for_server("pg_restore", program.version)
    path = default_path(psycopg_connection(connection).info.dbname, "before-adoption", datetime.now(UTC), SUFFIX)
    with atomic_file(path) as file:
        run_pg_dump(program, url, file, use_connection=partial(_use, connection))
        list_archive(reader, file)
    return path


def _use(connection: Connection) -> None:
    connection.scalar(select(1))
    connection.rollback()
