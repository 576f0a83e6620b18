"""A role's own schema at the end of the search_path holds what the package calls. It calls none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from support.commands import run
from support.sample_rows import load_rows
from support.shadows import count_calls, plant_shadows
from syntegra_db.connections import conninfo

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Server

ROLE = "syntegra_mallory"
COMMANDS = (
    "status",
    "verify",
    "vectors status --seconds 1",
    "vectors rebuild --lists 2",
    "backup --output rows.dump",
    "restore rows.dump --replace",
    "adopt",
    "rollback 002",
    "upgrade",
    "downgrade base",
)


@pytest.mark.slow
@pytest.mark.long
def test_command_calls_no_shadow_of_a_later_schema(server: Server, migrated_template: str, tmp_path: Path) -> None:
    with server.role(ROLE) as role, server.database(migrated_template) as database:
        load_rows(database, 300)
        database.execute(f"CREATE SCHEMA AUTHORIZATION {ROLE}")
        with psycopg.connect(conninfo(database.url_as(role)), autocommit=True) as attacker:
            plant_shadows(attacker, ROLE)
        database.execute(f"ALTER DATABASE {database.name} SET search_path = public, {ROLE}")
        for command in COMMANDS:
            result = run("syntegra-db", *command.split(), url=database.environment_url, cwd=tmp_path)
            assert result.returncode == 0, (command, result.stderr)
        with database.connect() as connection:
            assert count_calls(connection, ROLE) == 0
            with pytest.raises(psycopg.Error, match="a shadow was called"):
                connection.execute("SELECT quote_ident('a'::name)")
