"""`syntegra-db partitions` runs as a role with the privileges that SECURITY.md lists, and fails without any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.privileges import PARTITION_COMMANDS, ROLE, grant, revoke_defaults
from support.servers import Database

if TYPE_CHECKING:
    import subprocess

    from support.checkouts import Checkout
    from support.servers import Server

pytestmark = pytest.mark.long


def run_with(
    checkout: Checkout, server: Server, template: str, command: str, privileges: tuple[str, ...]
) -> subprocess.CompletedProcess[str]:
    """Run the command as a role with `privileges` on a copy of `template`."""
    with server.role(ROLE), server.database(template) as database:
        revoke_defaults(database)
        for privilege in privileges:
            database.execute(grant(database, privilege))
        # There are rows of these months in the default partition.
        options = ("--months", "5", "--move-rows") if "create" in command else ()
        return checkout.run("syntegra-db", *command.split(), *options, database=Database(database.url_as(ROLE)))


@pytest.mark.parametrize("command", PARTITION_COMMANDS)
def test_partition_command_with_its_privileges_succeeds(
    checkout: Checkout, server: Server, template: str, command: str
) -> None:
    result = run_with(checkout, server, template, command, PARTITION_COMMANDS[command])
    assert result.returncode == 0, result.stderr
    assert ("created kpi_summary_" in result.stdout) == ("create" in command)


@pytest.mark.parametrize(
    ("command", "missing"),
    [(command, missing) for command, privileges in PARTITION_COMMANDS.items() for missing in privileges],
)
def test_partition_command_without_one_privilege_fails_with_one_message(
    checkout: Checkout, server: Server, template: str, command: str, missing: str
) -> None:
    privileges = tuple(name for name in PARTITION_COMMANDS[command] if name != missing)
    result = run_with(checkout, server, template, command, privileges)
    assert result.returncode > 0, result.stdout
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in result.stderr
