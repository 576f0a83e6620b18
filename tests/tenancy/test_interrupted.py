"""`enable` and `disable` on a database in use: short waits for services, and all or nothing after kill -9."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest
from psycopg import sql

from support.commands import PROGRAMS
from support.evolutions import INSERT_KPI
from support.installed_state import state_of
from support.logins import ROLES, clients_seen
from support.processes import PAUSED, blocking, running, wait_for_rows, wait_until, writing
from support.protection import never_bare
from support.sample_rows import load_rows
from syntegra_db.tenancy import disable, enable

if TYPE_CHECKING:
    from typing import Any

    from support.logins import Logins
    from support.servers import Database

ROWS = 20_000
# `benchmarks/tenancy_enable.py` measures how long writers wait.
BLOCKER_SECONDS = 4
INSERT_SOURCE: LiteralString = "INSERT INTO data_sources (client_id, name, type) VALUES (1, 'till', 'simple_csv')"
SESSIONS = "SELECT FROM pg_stat_activity WHERE application_name LIKE 'syntegra_db tenancy%'"
# The statement of this number waits until its client is killed, of which the server takes note within a second.
PAUSE = """
    CREATE FUNCTION pause() RETURNS event_trigger LANGUAGE plpgsql AS $$
    DECLARE
      number integer := coalesce(nullif(current_setting('syntegra_test.number', true), ''), '0')::integer + 1;
    BEGIN
      PERFORM set_config('syntegra_test.number', number::text, false);
      IF number = {} THEN
        PERFORM pg_sleep(60);
      END IF;
    END
    $$;
    CREATE EVENT TRIGGER pause ON ddl_command_end EXECUTE FUNCTION pause()
"""
DROP_PAUSE: LiteralString = "DROP EVENT TRIGGER pause; DROP FUNCTION pause()"
KILLS = 10
# Each command runs some more statements that change the schema; the last kill is at this one.
STATEMENTS = {"enable": 125, "disable": 300}


def full_state(database: Database) -> tuple[Any, ...]:
    return *state_of(database), database.query(
        "SELECT rolname FROM pg_roles WHERE rolname ~ '^syntegra_[a-z]+$' ORDER BY 1"
    )


@pytest.mark.each("command")
@pytest.mark.parametrize("kill", range(KILLS))
@pytest.mark.parametrize("command", STATEMENTS)
def test_killed_command_changes_all_or_nothing(logins: Logins, database: Database, command: str, kill: int) -> None:
    del logins
    if command == "disable":
        enable(database.engine)
    before = full_state(database)
    moment = 1 + kill * (STATEMENTS[command] - 1) // (KILLS - 1)
    database.execute(sql.SQL(PAUSE).format(moment))
    with running(database, str(PROGRAMS / "syntegra-db"), "tenancy", command, *yes(command)) as process:
        wait_for_rows(database, PAUSED)
        process.kill()
    wait_until(lambda: not database.query(SESSIONS))
    database.execute(DROP_PAUSE)
    assert full_state(database) == before
    with running(database, str(PROGRAMS / "syntegra-db"), "tenancy", command, *yes(command)) as process:
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert full_state(database) != before


def yes(command: str) -> list[str]:
    return ["--yes"] if command == "disable" else []


def test_writers_do_not_wait_for_the_transaction_that_delays_the_command(logins: Logins, database: Database) -> None:
    load_rows(database, ROWS)
    with writing(database, INSERT_KPI) as kpis, writing(database, INSERT_SOURCE) as sources:
        for change in (enable, disable, enable):
            with never_bare(database), blocking(database, BLOCKER_SECONDS, INSERT_KPI):
                change(database.engine)
    assert min(len(kpis), len(sources)) > 1
    assert max([*kpis, *sources]) < BLOCKER_SECONDS - 1
    assert clients_seen(database, logins.create(ROLES.service), "kpi_summary", 7) == {7}
