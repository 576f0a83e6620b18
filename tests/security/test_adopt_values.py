"""`adopt --set` takes a value or one expression: no second statement, and no effect on the database while planning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import ProgrammingError

from support.commands import run
from support.legacy_databases import create_legacy_database, execute
from support.pg_dump import dump
from syntegra_db import adoption
from syntegra_db.errors import DecisionRequired
from syntegra_db.sql import execute_query

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

ESCAPE = "1) AS bigint); COMMIT; DELETE FROM precious; --"
NOT_AN_EXPRESSION = [
    ESCAPE,
    "1; DELETE FROM precious",
    "1 END; COMMIT; DELETE FROM precious; --",
    "1) AS bigint) AS value FROM precious) AS supplied; --",
    "1) AS bigint) AS value FROM precious UNION SELECT CAST((2",
    "1 END, CASE WHEN true THEN 2",
    "1) + (2",
    "1, 2",
    "SELECT 1",
    "generate_series(1, 2)",
    "1 /*",
    "1 --",
    "E'\\'; DELETE FROM precious; --",
    "$a$; DELETE FROM precious; --",
]
VOLATILE = [
    "nextval('numbers')",
    "setval('numbers', 99)",
    "(SELECT nextval('numbers'))",
    "CASE WHEN id > 0 THEN (SELECT max(nextval('numbers')) FROM precious) END",
    "(random() * 9)::bigint",
    "length(pg_advisory_lock(7)::text)",
    "pg_terminate_backend(pg_backend_pid())::int",
    "lo_creat(-1)::bigint",
    "length(set_config('search_path', 'pg_temp', false))",
    "count(*)",
    "row_number() OVER ()",
]
# What a user created can have effects whatever it is declared as, and the planner runs what is immutable.
CREATED = (
    "CREATE FUNCTION spy(bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RAISE 'called'; END$$",
    "CREATE FUNCTION spy(bigint, bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RAISE 'called'; END$$",
    "CREATE OPERATOR |+| (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = spy)",
    "CREATE AGGREGATE spy_all(bigint) (SFUNC = spy, STYPE = bigint, INITCOND = '0')",
    "CREATE DOMAIN spied AS bigint CHECK (spy(VALUE) > 0)",
    "CREATE TYPE mood AS ENUM ('good', 'bad')",
    "CREATE FUNCTION spy(mood) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RAISE 'called'; END$$",
    "CREATE FUNCTION spy_json(mood) RETURNS json IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RAISE 'called'; END$$",
    "CREATE CAST (mood AS bigint) WITH FUNCTION spy(mood) AS ASSIGNMENT",
    "CREATE CAST (mood AS json) WITH FUNCTION spy_json(mood)",
    "CREATE VIEW spies AS SELECT spy(1) AS id",
    "CREATE TYPE pair AS (client spied)",
)
CALLS = [
    "length(query_to_xml('DELETE FROM precious', true, true, '')::text)",
    "spy(1)",
    "(SELECT spy(1))",
    "CASE WHEN id > 0 THEN spy(id) END",
    "1 + spy(1)",
    "1::bigint |+| 2::bigint",
    "1::bigint OPERATOR(public.|+|) 2",
    "(SELECT spy_all(id) FROM precious)",
    "1::spied",
    "(1::text)::spied::bigint",
    "(ARRAY[1]::spied[])[1]",
    "(ROW(1)::pair).client",
    "'good'::mood",
    "('good'::mood)::bigint",
    "length(to_jsonb('good'::mood)::text)",
    "(SELECT id FROM spies)",
    "length(table_to_xml('spies', true, true, '')::text)",
    "pg_input_is_valid('1', 'spied')::int",
    "(SELECT max(n) FROM spy(1) AS n)",
    "delete_precious()",
    "hidden()",
]
ALLOWED = {
    "source_id + 1": "(source_id + 1)",
    "extract(epoch FROM now())::bigint": "(extract(epoch FROM now())::bigint)",
    "(SELECT max(id) FROM precious)": "((SELECT max(id) FROM precious))",
    "length('%s :id 100 %')": "(length('%s :id 100 %'))",
    "1 -- comment\n + 2": "(1 -- comment\n + 2)",
}


@pytest.fixture
def legacy(empty_database: Database) -> Database:
    """A database to adopt, with a table and a sequence that must not change."""
    create_legacy_database(empty_database, "first_two")
    execute(
        empty_database,
        "CREATE TABLE precious AS SELECT 1 AS id",
        "CREATE SEQUENCE numbers",
        "CREATE FUNCTION delete_precious() RETURNS int LANGUAGE sql AS 'DELETE FROM precious RETURNING id'",
        "CREATE FUNCTION hidden() RETURNS bigint STABLE LANGUAGE plpgsql AS "
        "$$BEGIN RETURN (SELECT nextval('numbers')); END$$",
    )
    return empty_database


def plan(database: Database, value: str) -> adoption.AdoptionPlan:
    with database.engine.connect() as connection:
        return adoption.plan(connection, adoption.AdoptionInput({"processed_data.client_id": value}))


@pytest.mark.parametrize("value", NOT_AN_EXPRESSION)
def test_text_that_is_not_one_expression_is_rejected(legacy: Database, value: str) -> None:
    before = dump(legacy)
    with pytest.raises(DecisionRequired, match=r"neither a value of type bigint nor an SQL expression .*\.$"):
        plan(legacy, value)
    assert dump(legacy) == before


@pytest.mark.parametrize("value", VOLATILE)
def test_expression_with_effects_is_rejected(legacy: Database, value: str) -> None:
    before = dump(legacy)
    with pytest.raises(DecisionRequired, match="cannot use a volatile function"):
        plan(legacy, value)
    assert dump(legacy) == before
    assert legacy.query("SELECT is_called FROM numbers") == [(False,)]


@pytest.mark.parametrize("value", CALLS)
def test_expression_that_calls_what_a_user_created_is_rejected_without_running_it(legacy: Database, value: str) -> None:
    execute(legacy, *CREATED)
    before = dump(legacy)
    with pytest.raises(DecisionRequired, match=r"it uses .*, which can run code that a user created"):
        plan(legacy, value)
    assert dump(legacy) == before
    assert legacy.query("SELECT is_called FROM numbers") == [(False,)]


@pytest.mark.parametrize(("value", "expression"), ALLOWED.items())
def test_expression_over_the_row_is_planned(legacy: Database, value: str, expression: str) -> None:
    (backfill,) = plan(legacy, value).backfills
    assert backfill.expression == expression


def test_parallel_plan_of_a_large_table_is_recognized(legacy: Database) -> None:
    execute(
        legacy,
        f"ALTER DATABASE {legacy.name} SET min_parallel_table_scan_size = 0",
        f"ALTER DATABASE {legacy.name} SET parallel_setup_cost = 0",
        f"ALTER DATABASE {legacy.name} SET parallel_tuple_cost = 0",
    )
    assert plan(legacy, "source_id + 1").backfills
    with pytest.raises(DecisionRequired, match="cannot use a volatile function"):
        plan(legacy, "(random() * 9)::bigint")


def test_plan_leaves_the_transaction_of_the_caller_writable(legacy: Database) -> None:
    with legacy.engine.begin() as connection:
        adoption.plan(connection, adoption.AdoptionInput({"processed_data.client_id": "source_id + 1"}))
        connection.exec_driver_sql("INSERT INTO precious VALUES (2)")
    assert legacy.query("SELECT count(*) FROM precious") == [(2,)]


@pytest.mark.parametrize("value", [ESCAPE, "delete_precious()"])
@pytest.mark.parametrize("options", [(), ("--apply", "--no-backup", "--yes")], ids=["plan", "apply"])
def test_command_with_statement_exits_with_its_status(
    legacy: Database, tmp_path: Path, value: str, options: tuple[str, ...]
) -> None:
    before = dump(legacy)
    assignment = f"processed_data.client_id={value}"
    result = run("syntegra-db", "adopt", "--set", assignment, *options, url=legacy.environment_url, cwd=tmp_path)
    assert result.returncode == 24, result.stderr
    error = result.stderr.splitlines()[-1]
    assert error.startswith("Error: --set processed_data.")
    assert error.endswith(" Nothing was changed.")
    assert dump(legacy) == before


@pytest.mark.parametrize(
    "text", ["SELECT 1; SELECT 2", "SELECT 1; COMMIT; --", "SELECT '%s :a'; DELETE FROM precious; SELECT 1"]
)
def test_second_statement_is_rejected_by_the_server(legacy: Database, text: str) -> None:
    with (
        legacy.engine.connect() as connection,
        pytest.raises(ProgrammingError, match="cannot insert multiple commands into a prepared statement"),
    ):
        execute_query(connection, text)
    assert legacy.query("SELECT count(*) FROM precious") == [(1,)]
