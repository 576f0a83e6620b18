"""The Makefile and the operators' scripts, on the embedded server."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import operator_guide as guide
from support.sample_rows import TABLES
from syntegra_db.revisions import head_revision

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def checkout() -> Iterator[guide.Checkout]:
    """A checkout without .env, so its commands use the embedded server.

    It is not in pytest's temporary directory: another run of pytest makes that unreadable for the server's user.
    """
    checkout = guide.Checkout(Path(tempfile.mkdtemp(prefix="syntegra-db-")))
    try:
        yield checkout
    finally:
        checkout.run("make local-stop")
        shutil.rmtree(checkout.folder)


def test_guide_commands_on_embedded_server_migrate_and_roll_back(checkout: guide.Checkout) -> None:
    for migrate, rollback in zip(guide.MIGRATE[:2], guide.ROLLBACK[:2], strict=True):
        assert "at revision 003" in checkout.succeed(migrate)
        assert "The analytics tables match revision 003." in checkout.succeed("make verify-analytics-tables")
        assert "at revision 002" in checkout.succeed(rollback)
        outcome = checkout.run("make verify-analytics-tables")
        assert outcome.status != 0
        assert "MISSING    clusters" in outcome.output


@pytest.mark.long
def test_scripts_in_another_directory_migrate_and_roll_back(checkout: guide.Checkout) -> None:
    assert "at revision 003" in checkout.succeed(f"cd / && {checkout.folder}/scripts/run_migration_003.sh")
    assert "at revision 002" in checkout.succeed(f"cd / && {checkout.folder}/scripts/rollback_migration_003.sh")


def test_make_migrate_reaches_head_and_lists_tables(checkout: guide.Checkout) -> None:
    output = checkout.succeed("make migrate")
    assert f"at revision {head_revision()}" in output
    for table in TABLES:
        assert table in output
    checkout.succeed("make status")
    checkout.succeed("make verify")


@pytest.mark.long
def test_make_psql_opens_the_embedded_database(checkout: guide.Checkout) -> None:
    checkout.succeed("make migrate")
    assert "syntegra_user@syntegra_db" in checkout.succeed(
        """echo "SELECT current_user || '@' || current_database()" | make psql"""
    )


def test_make_with_unreachable_server_prints_one_line_and_fails(checkout: guide.Checkout) -> None:
    outcome = checkout.run("make status", DATABASE_URL="postgresql://user:secret@127.0.0.1:1/nowhere")
    assert outcome.status == 2
    error, make_error = outcome.output.splitlines()
    assert error.startswith("Error: No PostgreSQL server answers")
    assert make_error.startswith("make: ***")
    assert "secret" not in outcome.output


def test_make_help_lists_every_target(checkout: guide.Checkout) -> None:
    output = checkout.succeed("make")
    makefile = (checkout.folder / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    phony = next(line for line in makefile.splitlines() if line.startswith(".PHONY:")).split()[1:]
    listed = [line.split()[0] for line in output.splitlines() if line.startswith("  ")]
    assert sorted(listed) == sorted(phony)


def test_make_after_failed_installation_installs_again(checkout: guide.Checkout) -> None:
    folder = checkout.folder / "broken"
    broken = guide.Checkout(folder, {"VENV": ".venv", "PYTHON": "./python"})
    python = folder / "python"
    python.write_text(
        '#!/bin/sh\nmkdir -p .venv/bin && printf "#!/bin/sh\\nexit 1\\n" > .venv/bin/pip\nchmod +x .venv/bin/pip'
    )
    python.chmod(0o755)
    for _ in range(2):
        outcome = broken.run("make status")
        assert outcome.status == 2
        assert "Creating the environment" in outcome.output
    assert not (folder / ".venv" / "installed").exists()
