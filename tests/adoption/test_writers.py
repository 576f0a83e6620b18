"""What programs that write rows must give after an adoption, and the values that the plan suggests for rows."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import psycopg
import pytest

from support.commands import run, succeed
from support.legacy_databases import create_legacy_database, execute
from support.pg_dump import dump
from syntegra_db import adoption

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

HEADING = "\nFrom now on, programs that write rows must give\n"
MADRID = "Europe/Madrid"
SOURCE_CLIENT = "(SELECT coalesce(s.client_id, 2) FROM data_sources AS s WHERE s.id = processed_data.source_id)"
SUGGESTED = {
    "anomaly_log.detected_at": "created_at",
    "anomaly_log.severity": "medium",
    "clusters.features_json": "to_jsonb(features_used)",
    "clusters.updated_at": "created_at",
    "data_sources.config_json": "{}",
    "data_sources.updated_at": "created_at",
    "processed_data.client_id": "(SELECT client_id FROM data_sources WHERE id = processed_data.source_id)",
}
# Inserts of the application that the adoption breaks, and what the plan says about them.
BROKEN_INSERTS = {
    "INSERT INTO processed_data (source_id, source_type, data) VALUES (1, 'retail', '{}')": (
        "processed_data.client_id: a value, because it is NOT NULL and has no default"
    ),
    "INSERT INTO processed_data (client_id, source_id, data) VALUES (1, 1, '{}')": (
        "processed_data.source_type: a value, because it is NOT NULL and has no default"
    ),
    "INSERT INTO processed_data (client_id, source_id, source_type, data) VALUES (9, 1, 'retail', '{}')": (
        "processed_data: rows that meet FOREIGN KEY (client_id, source_id) REFERENCES data_sources(client_id, id)"
    ),
    "INSERT INTO clusters (client_id, cluster_id, features_used) VALUES (1, 1, '{visits}')": (
        "clusters.features_json: a value, because it is NOT NULL and has no default"
    ),
    "UPDATE data_sources SET updated_at = NULL": ("data_sources.updated_at: no NULL; without a value it gets now()"),
    "UPDATE data_sources SET config_json = NULL": ("data_sources.config_json: no NULL; without a value it gets '{}'"),
    "UPDATE data_sources SET name = repeat('a', 256)": "data_sources.name: at most 255 characters",
    "UPDATE anomaly_log SET severity = 'fatal'": "anomaly_log.severity: one of low, medium, high, critical",
    "UPDATE anomaly_log SET value = 'NaN'": "anomaly_log: rows that meet CHECK (((value > '-Infinity'",
    "UPDATE text_summary SET keywords = ARRAY['a']": "text_summary.keywords: jsonb instead of text[]",
}
UNCHANGED = ("text_summary.sentiment_score", "anomaly_log.kpi_name: a value", "clusters: rows", "text_summary: rows")
# A statement, the column without values, and the suggested value.
SUGGESTIONS = [
    ("ALTER TABLE clusters DROP created_at", "clusters.updated_at", None),
    (
        """UPDATE data_sources SET updated_at = now(); ALTER TABLE data_sources ALTER created_at DROP NOT NULL;
           UPDATE data_sources SET created_at = NULL""",
        "data_sources.created_at",
        "updated_at",
    ),
    (
        "ALTER TABLE clusters ALTER features_used DROP NOT NULL; UPDATE clusters SET features_used = NULL WHERE id = 2",
        "clusters.features_json",
        None,
    ),
    ("ALTER TABLE clusters ADD features_old json", "clusters.features_json", None),
    (
        """ALTER TABLE clusters RENAME features_used TO "features ""used\"""",
        "clusters.features_json",
        'to_jsonb("features ""used")',
    ),
    ("ALTER TABLE clusters ADD features_json json", "clusters.features_json", "to_json(features_used)"),
    ("ALTER TABLE clusters ADD features_json text", "clusters.features_json", None),
    ("UPDATE processed_data SET source_id = NULL WHERE id = 2", "processed_data.client_id", None),
    ("UPDATE data_sources SET status = NULL", "data_sources.status", "idle"),
    ("ALTER TABLE text_summary ADD language text", "text_summary.language", "es"),
]


def read_plan(database: Database, values: dict[str, str] | None = None) -> adoption.AdoptionPlan:
    with database.engine.connect() as connection:
        return adoption.plan(connection, adoption.AdoptionInput(values or {}, MADRID))


@pytest.fixture
def application(empty_database: Database) -> Database:
    create_legacy_database(empty_database, "application")
    return empty_database


@pytest.mark.long
def test_suggested_command_runs_as_printed_and_fills_the_columns(application: Database, tmp_path: Path) -> None:
    url = application.environment_url
    before = dump(application)
    result = run("syntegra-db", "adopt", "--timezone", MADRID, url=url, cwd=tmp_path)
    assert result.returncode == 24
    heading, command = result.stdout.splitlines()[-2:]
    assert heading == "The same command with the suggested options"
    program, *arguments = shlex.split(command)
    assert [f"{name}={value}" for name, value in SUGGESTED.items()] == arguments[6::2]
    assert arguments[:6] == ["adopt", "--timezone", MADRID, "--accept-loss", "text_summary.sentiment_score", "--set"]
    plan = succeed(program, *arguments, url=url, cwd=tmp_path)
    assert dump(application) == before
    applied = succeed(program, *arguments, "--apply", url=url, cwd=tmp_path)
    for output in (plan, applied):
        assert f"{HEADING}  anomaly_log.kpi_name: at most 255 characters\n" in output
    assert application.query("SELECT DISTINCT features_json FROM clusters") == [(["visits", "spend"],)]
    assert application.query("SELECT client_id, source_id FROM processed_data ORDER BY id") == [(1, 1), (2, 2), (3, 3)]
    for table in ("clusters", "data_sources"):
        assert application.query(f"SELECT count(*) FROM {table} WHERE updated_at IS DISTINCT FROM created_at") == [(0,)]
    assert application.query("SELECT DISTINCT config_json, status FROM data_sources") == [({}, "pending")]
    assert application.query("SELECT count(*) FROM anomaly_log WHERE detected_at = created_at") == [(3,)]


def test_suggested_command_repeats_the_given_options(application: Database, tmp_path: Path) -> None:
    execute(application, "CREATE SCHEMA \"el 'esquema'\"", "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    execute(application, f"ALTER DATABASE {application.name} SET search_path = \"el 'esquema'\", public")
    create_legacy_database(application, "application")
    execute(application, f"ALTER DATABASE {application.name} RESET search_path")
    given = (
        *("--set", "anomaly_log.severity=CASE WHEN id > 1 THEN 'low' ELSE 'high' END"),
        *("--timezone", MADRID, "--accept-loss", "text_summary.sentiment_score", "--schema", "el 'esquema'"),
    )
    url = application.environment_url
    result = run("syntegra-db", "adopt", *given, url=url, cwd=tmp_path)
    assert result.returncode == 24, result.stderr
    program, *arguments = shlex.split(result.stdout.splitlines()[-1])
    assert tuple(arguments[1 : len(given) + 1]) == given
    succeed(program, *arguments, "--apply", "--no-backup", "--yes", url=url, cwd=tmp_path)
    stored = application.query("SELECT severity::text FROM \"el 'esquema'\".anomaly_log ORDER BY id")
    assert stored == [("high",), ("low",), ("low",)]


def test_suggested_option_of_each_question_answers_it(application: Database) -> None:
    questions = read_plan(application).open_questions
    for question in questions:
        option, _, value = " ".join(question.option).partition("=")
        if not option.startswith("--set "):
            continue
        left = read_plan(application, {option.removeprefix("--set "): value}).open_questions
        assert {other.object for other in left} == {other.object for other in questions} - {question.object}


@pytest.mark.parametrize(("statement", "column", "value"), SUGGESTIONS)
def test_value_is_suggested_only_if_every_row_gets_one(
    application: Database, statement: str, column: str, value: str | None
) -> None:
    execute(application, *statement.split(";"))
    options = {question.object: question.option for question in read_plan(application).open_questions}
    expected = () if value is None else ("--set", f"{column}={value}")
    assert options[f"column {column}"] == expected
    if value is not None:
        assert f"column {column}" not in {
            question.object for question in read_plan(application, {column: value}).open_questions
        }


def test_supplied_value_that_is_null_gets_no_suggestion(application: Database) -> None:
    questions = read_plan(application, {"clusters.updated_at": "nullif(created_at, created_at)"}).open_questions
    (question,) = [question for question in questions if question.object == "column clusters.updated_at"]
    assert (question.reason, question.option) == ("is required, but the supplied value is NULL", ())


def test_plan_lists_what_breaks_the_inserts_of_the_application(application: Database) -> None:
    plan = read_plan(application)
    listed = [f"{writer.object}: {writer.requirement}" for writer in plan.writers]
    for requirement in BROKEN_INSERTS.values():
        assert any(line.startswith(requirement) for line in listed), requirement
    assert not [line for line in listed if line.startswith(UNCHANGED)]
    supplied = adoption.AdoptionInput(SUGGESTED, MADRID, ("text_summary.sentiment_score",))
    assert adoption.apply(application.engine, supplied, backup=False).plan.writers == plan.writers
    assert read_plan(application).writers == ()
    for statement in BROKEN_INSERTS:
        with pytest.raises(psycopg.Error):
            execute(application, statement)


@pytest.mark.parametrize("name", ["serial_ids", "times_without_zone", "shared", "first_two", "half_run", "other_names"])
def test_every_column_that_becomes_required_is_listed(empty_database: Database, name: str) -> None:
    create_legacy_database(empty_database, name)
    values = {
        "first_two": {
            "data_sources.client_id": "2",
            "processed_data.client_id": SOURCE_CLIENT,
            "processed_data.source_type": "a",
        },
        "times_without_zone": {
            "processed_data.client_id": "7",
            "data_sources.status": "idle",
            "data_sources.updated_at": "created_at",
        },
    }
    before = read_columns(empty_database)
    supplied = adoption.AdoptionInput(values.get(name, {}), MADRID)
    plan = adoption.apply(empty_database.engine, supplied, backup=False).plan
    after = {
        column: state
        for column, state in read_columns(empty_database).items()
        if column.split(".")[0] in plan.texts and not column.endswith(".id")
    }
    listed = {
        start: {writer.object for writer in plan.writers if writer.requirement.startswith(start)}
        for start in ("a value, because", "no NULL")
    }
    assert listed["a value, because"] == {
        column for column, state in after.items() if state == (True, False) and before.get(column) != (True, False)
    }
    assert listed["no NULL"] == {
        column for column, state in after.items() if state == (True, True) and not before.get(column, (True, True))[0]
    }


def read_columns(database: Database) -> dict[str, tuple[bool, bool]]:
    """Return by column whether it is NOT NULL, and whether it has a default."""
    rows = database.query("""
        SELECT attrelid::regclass || '.' || attname, attnotnull, atthasdef OR attidentity <> ''
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
    """)
    return {column: (is_required, has_default) for column, is_required, has_default in rows}
