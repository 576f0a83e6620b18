"""Values that a new type cannot store, and values that a conversion changes: named by row, or accepted by the user."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

import pytest

from support.commands import run, succeed
from support.legacy_databases import create_legacy_database, execute, read_rows
from support.pg_dump import dump
from syntegra_db import adoption
from syntegra_db.adoption._each_row import evaluate_each_row
from syntegra_db.adoption._row_checks import FIX_ROWS
from syntegra_db.errors import AdoptionNotPossible, DecisionRequired
from syntegra_db.sql import literal

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

CONFIG, DEVIATION = "data_sources.config_json", "anomaly_log.deviation"
NOT_IN_JSONB = {
    "cut surrogate pair": r'{"k": "cut emoji \ud83d"}',
    "second half alone": r'{"k": "\ude00"}',
    "halves in the wrong order": r'["\ude00\ud83d"]',
    "surrogate in a key": r'{"\udc01": 1}',
    "NUL": r'{"k": "\u0000"}',
    "NUL in a key": r'{"a\u0000": 1}',
    "NUL after an escaped backslash": r'"C:\\\u0000ff"',
    "large number": '{"k": 1e200000}',
    "large negative number": "[-1e200000]",
    "small number": '{"k": 1e-20000}',
    "number that Python would not read": '{"k": [1e5000]}',
    "its negative": '[["1e2"], -1.5E+04301]',
}
NOT_JSON = {"empty": "", "path": "{path}", "NaN": '{"k": NaN}', "two values": "{} {}", "deep": "[" * 100_000}
IN_JSONB = [
    r'{"path": "C:\\u0000ff"}',
    r'{"path": "\\\\u0000"}',
    r'{"k": "\ud83d\ude00"}',
    r'{"k": "\\ud83d"}',
    '{"k": 1e22, "small": 1e-300}',
    '"\\"quoted\\" \\\\"',
]
DUPLICATE_KEYS = {
    '{"a": 1, "a": 2}': {"a": 2},
    '{"a": 1, "a": 1}': {"a": 1},
    '[[], {"x": {"b:": 1, "b:": 2}}]': [[], {"x": {"b:": 2}}],
    r'{"a": 1, "\u0061": 2}': {"a": 2},
    r'{"a": 1, "a": "\u003a"}': {"a": ":"},
    '{"a": {"b": 1, "c": 2}, "a": ":::"}': {"a": ":::"},
}
NEGATIVE_ZEROS = [
    "-0",
    "-0.00",
    '{"k": [1, -0e5]}',
    '[{"k": {"k":-0.0E+1}}]',
    r'{"a\"": "-1", "b": -0}',
    '[1e-0, "-0", -0.0]',
]
EQUAL_IN_JSONB = [
    '"-0"',
    '{"-0": 0, "a": "[-0]", "b": ":-0.0"}',
    r'{"a\"": -1, "b": "\"-0"}',
    "[-0.01, -0.5e-9, 1e-0, 1E-05, 1.10, 1e2, 0e-3]",
    r'{"b": 1, "a": "2024-01-01\/\u0041", "aa": 1e999}',
    f'{{"1e5000": "{"0" * 5000}1e5000", "k": 1e300}}',
]
UNIQUE_KEYS = [
    '{"a": {"a": {"a": 1}}, "b": "a: 1, a: 2"}',
    '["a", ":", "a", ":"]',
    r'{"a": "\u003a", "\u003a": "\"a\":"}',
    r'{"a\\": 1, "a": 2}',
]


def read_plan(database: Database, *losses: str, **values: str) -> adoption.AdoptionPlan:
    supplied = adoption.AdoptionInput({name.replace("__", "."): text for name, text in values.items()}, None, losses)
    with database.engine.connect() as connection:
        return adoption.plan(connection, supplied)


def apply(database: Database, *losses: str) -> adoption.AdoptionResult:
    return adoption.apply(database.engine, adoption.AdoptionInput({}, None, losses), backup=False)


def create_sources(database: Database, kind: str, *values: str) -> None:
    """Create data_sources with the JSON column as `kind`, a valid row, and a row for each of `values`."""
    rows = ", ".join(f"(1, 'a', 'csv', {literal(value)})" for value in ("{}", *values))
    execute(
        database,
        "CREATE TABLE data_sources (id serial PRIMARY KEY, client_id integer NOT NULL, name varchar(100) NOT NULL, "
        f"type varchar(50) NOT NULL, config_json {kind})",
        f"INSERT INTO data_sources (client_id, name, type, config_json) VALUES {rows}",
    )


def assert_refused(database: Database, column: str, ids: tuple[int, ...]) -> None:
    """The plan and --apply name the column and the rows, and nothing is changed."""
    before = dump(database)
    (question,) = read_plan(database).open_questions
    assert (question.object, question.ids, question.advice) == (f"column {column}", ids, FIX_ROWS)
    with pytest.raises(DecisionRequired, match=rf"{column} has .*id {', '.join(map(str, ids))}\)"):
        apply(database)
    assert dump(database) == before


@pytest.mark.parametrize("kind", ["json", "text", "varchar(200)"])
@pytest.mark.parametrize("value", NOT_IN_JSONB.values(), ids=NOT_IN_JSONB)
def test_json_that_jsonb_cannot_store_is_named_by_row(empty_database: Database, kind: str, value: str) -> None:
    create_sources(empty_database, kind, value, '{"k": 1}', value)
    assert_refused(empty_database, CONFIG, (2, 4))


@pytest.mark.parametrize("value", NOT_JSON.values(), ids=NOT_JSON)
def test_text_that_is_not_json_is_named_by_row(empty_database: Database, value: str) -> None:
    create_sources(empty_database, "text", value)
    assert_refused(empty_database, CONFIG, (2,))


@pytest.mark.parametrize("kind", ["json", "text"])
def test_json_that_jsonb_stores_is_converted(empty_database: Database, kind: str) -> None:
    create_sources(empty_database, kind, *IN_JSONB, *UNIQUE_KEYS)
    apply(empty_database)
    stored = empty_database.query("SELECT config_json FROM data_sources ORDER BY id")
    assert [value for (value,) in stored[1:]] == [json.loads(text) for text in [*IN_JSONB, *UNIQUE_KEYS]]


def test_many_unconvertible_rows_are_counted_in_a_read_only_transaction(empty_database: Database) -> None:
    create_sources(empty_database, "json", *[*NOT_IN_JSONB.values(), *IN_JSONB] * 3)
    with empty_database.engine.connect() as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        (question,) = adoption.plan(connection).open_questions
    assert (question.count, question.ids) == (3 * len(NOT_IN_JSONB), tuple(range(2, 12)))


def test_supplied_value_that_jsonb_cannot_store_is_named_by_row(empty_database: Database) -> None:
    create_sources(empty_database, "json")
    execute(
        empty_database,
        "ALTER TABLE data_sources ADD evaluated text DEFAULT '$a$', ADD violations int, ADD is_violation int",
        "UPDATE data_sources SET config_json = NULL",
    )
    value = r"""json_build_object(evaluated, violations, '; -- $a$', '{"k": "\ud83d"}'::json)"""
    (question,) = read_plan(empty_database, data_sources__config_json=value).open_questions
    assert (question.object, question.ids) == (f"column {CONFIG}", (1,))


@pytest.mark.parametrize(("failed", "found"), [(True, (8, [2, 3, 4])), (False, (3, [7, 9, 11]))])
def test_row_whose_value_is_rejected_has_the_given_result(
    empty_database: Database, *, failed: bool, found: tuple[int, list[int]]
) -> None:
    create_sources(empty_database, "text", *NOT_JSON.values(), *IN_JSONB)
    with empty_database.engine.connect() as connection:
        condition = "config_json::jsonb IS NOT NULL AND id > 1 AND id % 2 = 1"
        assert evaluate_each_row(connection, "data_sources", condition, 3, failed=failed) == found


@pytest.mark.parametrize("kind", ["json", "text"])
@pytest.mark.parametrize(("value", "kept"), DUPLICATE_KEYS.items())
def test_duplicate_keys_are_removed_only_if_accepted(
    empty_database: Database, kind: str, value: str, kept: Any
) -> None:
    create_sources(empty_database, kind, *UNIQUE_KEYS, value)
    (question,) = read_plan(empty_database).open_questions
    assert (question.object, question.ids) == (f"column {CONFIG}", (6,))
    assert "keeps the last value of each key" in question.advice
    with pytest.raises(DecisionRequired, match="duplicate keys"):
        apply(empty_database)
    result = apply(empty_database, *question.option[1:])
    assert [(loss.column, loss.rows) for loss in result.plan.losses] == [("config_json", 1)]
    assert empty_database.query("SELECT config_json FROM data_sources WHERE id = 6") == [(kept,)]


@pytest.mark.parametrize("kind", ["json", "text"])
@pytest.mark.parametrize("value", NEGATIVE_ZEROS)
def test_negative_zero_in_json_becomes_zero_only_if_accepted(empty_database: Database, kind: str, value: str) -> None:
    create_sources(empty_database, kind, *EQUAL_IN_JSONB, value)
    (question,) = read_plan(empty_database).open_questions
    assert (question.object, question.ids) == (f"column {CONFIG}", (8,))
    assert "stores -0 as 0" in question.advice
    with pytest.raises(DecisionRequired, match="the number -0"):
        apply(empty_database)
    result = apply(empty_database, *question.option[1:])
    assert [(loss.column, loss.rows) for loss in result.plan.losses] == [("config_json", 1)]
    assert empty_database.query("SELECT config_json FROM data_sources WHERE id = 8") == [(json.loads(value),)]


def test_json_that_jsonb_stores_as_equal_values_needs_no_decision(empty_database: Database) -> None:
    create_sources(empty_database, "json", *EQUAL_IN_JSONB)
    assert apply(empty_database).plan.losses == ()


@pytest.mark.parametrize("kind", ["real", "double precision"])
@pytest.mark.parametrize(("table", "column"), [("anomaly_log", "value"), ("trend_signals", "frequency")])
def test_negative_zero_in_a_column_becomes_zero_only_if_accepted(
    empty_database: Database, kind: str, table: str, column: str
) -> None:
    create_legacy_database(empty_database, "serial_ids")
    execute(
        empty_database,
        f"ALTER TABLE {table} ALTER {column} TYPE {kind}",
        f"UPDATE {table} SET {column} = CASE id WHEN 2 THEN '-0'::{kind} WHEN 3 THEN 1 ELSE 0 END",
    )
    (question,) = read_plan(empty_database).open_questions
    assert (question.ids, question.option) == ((2,), ("--accept-loss", f"{table}.{column}"))
    assert "-0" in question.reason
    assert [loss.rows for loss in apply(empty_database, f"{table}.{column}").plan.losses] == [1]
    stored = f"SELECT {column}::text FROM {table} WHERE id IN (1, 2, 3) ORDER BY id"
    assert empty_database.query(stored) == [("0",), ("0",), ("1",)]


def test_arrays_of_json_are_rejected_with_the_types(empty_database: Database) -> None:
    create_sources(empty_database, "json[]")
    with pytest.raises(AdoptionNotPossible, match=rf"{CONFIG} is json\[\], and no conversion to jsonb .*: change it"):
        apply(empty_database)


def test_accepted_duplicate_keys_do_not_accept_other_values(empty_database: Database) -> None:
    create_sources(empty_database, "json", '{"a": 1, "a": 2}', r'"\ud83d"')
    (refused,) = read_plan(empty_database, CONFIG).open_questions
    assert (refused.ids, refused.advice) == ((3,), FIX_ROWS)
    both = read_plan(empty_database).open_questions
    assert [question.ids for question in both] == [(3,), (2,)]


@pytest.mark.long
@pytest.mark.parametrize(
    "expression",
    [
        "id / 7.0",
        "ln(id + 1.000)",
        "id * 0.1 + 1e-30",
        "9007199254740993 + id * 2",
        "-id * 1.0000000000000000001e-9",
    ],
)
def test_scores_computed_in_sql_are_rounded_only_if_accepted(
    empty_database: Database, tmp_path: Path, expression: str
) -> None:
    create_legacy_database(empty_database, "serial_ids")
    execute(
        empty_database,
        "INSERT INTO anomaly_log (client_id, kpi_name, value) SELECT 1, 'avg_ticket', n FROM generate_series(1, 25) n",
        f"UPDATE anomaly_log SET deviation = {expression}",
    )
    before = read_rows(empty_database)
    rounded = {id_: float(value) for id_, value in before.pop(("anomaly_log", "deviation")).items()}
    (question,) = read_plan(empty_database).open_questions
    assert question.object == f"column {DEVIATION}"
    with pytest.raises(DecisionRequired, match=f"--accept-loss {DEVIATION} rounds them"):
        apply(empty_database)
    plan = run("syntegra-db", "adopt", url=empty_database.environment_url, cwd=tmp_path)
    assert plan.returncode == 24
    program, *arguments = shlex.split(plan.stdout.splitlines()[-1])
    accepted = succeed(program, *arguments, url=empty_database.environment_url, cwd=tmp_path)
    loss = f"{DEVIATION}, {question.count} rows, values with more digits than double precision can represent"
    assert f"\nChanges values, as accepted with --accept-loss\n  {loss}" in accepted
    applied = succeed(
        program, *arguments, "--apply", "--no-backup", "--yes", url=empty_database.environment_url, cwd=tmp_path
    )
    assert f"All rows are unchanged, verified column by column, except as accepted ({loss}" in applied
    after = read_rows(empty_database)
    assert {id_: float(value) for id_, value in after.pop(("anomaly_log", "deviation")).items()} == rounded
    assert {key: after[key] for key in before} == before


def test_loss_is_accepted_per_column(empty_database: Database) -> None:
    create_legacy_database(empty_database, "serial_ids")
    execute(
        empty_database,
        "ALTER TABLE clusters ALTER silhouette_score TYPE numeric, DROP CONSTRAINT silhouette",
        "ALTER TABLE trend_signals ALTER delta_pct TYPE bigint",
        "UPDATE clusters SET silhouette_score = 1.00000000000000000000001 WHERE id = 4",
        "UPDATE trend_signals SET delta_pct = 9223372036854775807 WHERE id = 5",
        "UPDATE anomaly_log SET deviation = 1e-400 WHERE id = 6",
    )
    columns = ("clusters.silhouette_score", "trend_signals.delta_pct", DEVIATION)
    questions = {question.object: question for question in read_plan(empty_database).open_questions}
    assert {f"column {name}" for name in columns} == set(questions)
    assert {question.option for question in questions.values()} == {("--accept-loss", name) for name in columns}
    for accepted in columns:
        left = {question.object for question in read_plan(empty_database, accepted).open_questions}
        assert left == set(questions) - {f"column {accepted}"}
    assert {(loss.table, loss.rows) for loss in apply(empty_database, *columns).plan.losses} == {
        ("clusters", 1),
        ("trend_signals", 1),
        ("anomaly_log", 1),
    }
    stored = """SELECT silhouette_score, delta_pct, deviation FROM clusters, trend_signals, anomaly_log
                WHERE clusters.id = 4 AND trend_signals.id = 5 AND anomaly_log.id = 6"""
    assert empty_database.query(stored) == [(1.0, 2.0**63, 0.0)]


def test_exact_numbers_need_no_decision(empty_database: Database) -> None:
    create_legacy_database(empty_database, "serial_ids")
    execute(
        empty_database,
        "UPDATE anomaly_log SET deviation = (ARRAY['NaN', 'Infinity', '-Infinity', '1.7976931348623157e308', "
        "'1e-300', '0.10000', '-9223372036854775808', '4611686018427388928']::numeric[])[id] WHERE id <= 8",
    )
    assert apply(empty_database, "anomaly_log.deviation").plan.losses == ()
    assert empty_database.query("SELECT deviation = -2::float8 ^ 63 FROM anomaly_log WHERE id = 7") == [(True,)]


def test_inexact_whole_and_largest_numbers_are_a_decision(empty_database: Database) -> None:
    create_legacy_database(empty_database, "serial_ids")
    values = "9223372036854775807, -9223372036854775807, 9007199254740993, 4611686018427387905, 1.7976931348623158e308"
    execute(
        empty_database, f"UPDATE anomaly_log SET deviation = (ARRAY[{values}, 1152921504606846976])[id] WHERE id <= 6"
    )
    (loss,) = apply(empty_database, "anomaly_log.deviation").plan.losses
    assert loss.rows == 5
    assert empty_database.query("SELECT deviation FROM anomaly_log WHERE id = 5") == [(sys.float_info.max,)]


@pytest.mark.parametrize("kind", ["numeric", "numeric(12, 2)", "double precision", "real"])
def test_counts_computed_in_sql_are_whole_or_rounded_if_accepted(empty_database: Database, kind: str) -> None:
    create_legacy_database(empty_database, "serial_ids")
    execute(empty_database, f"ALTER TABLE trend_signals ALTER frequency TYPE {kind}")
    assert read_plan(empty_database).open_questions == ()
    execute(
        empty_database,
        "UPDATE trend_signals SET frequency = frequency + 0.75 WHERE id < 3",
        "UPDATE trend_signals SET frequency = 'NaN' WHERE id = 8",
        "UPDATE trend_signals SET frequency = 3e9 WHERE id = 9",
    )
    refused, lossy = read_plan(empty_database).open_questions
    assert (refused.ids, refused.advice) == ((8, 9), FIX_ROWS)
    assert (lossy.ids, lossy.option) == ((1, 2), ("--accept-loss", "trend_signals.frequency"))
    execute(empty_database, "UPDATE trend_signals SET frequency = 7 WHERE id IN (8, 9)")
    assert [loss.rows for loss in apply(empty_database, "trend_signals.frequency").plan.losses] == [2]
    assert empty_database.query("SELECT array_agg(frequency ORDER BY id) FROM trend_signals WHERE id < 10") == [
        ([2, 3, 3, 4, 5, 6, 7, 7, 7],)
    ]


# The statements, the column, and the rows.
UNCONVERTIBLE = {
    "larger than double precision": (["UPDATE anomaly_log SET deviation = 1e400 WHERE id = 6"], DEVIATION, (6,)),
    "just larger": (["UPDATE anomaly_log SET deviation = 1.8e308 WHERE id IN (6, 7)"], DEVIATION, (6, 7)),
    "longer than the limit": (
        ["ALTER TABLE clusters ALTER cluster_name TYPE text", "UPDATE clusters SET cluster_name = repeat('a', 256)"],
        "clusters.cluster_name",
        tuple(range(1, 11)),
    ),
    "larger than integer": (
        ["UPDATE trend_signals SET frequency = 2147483648 WHERE id = 2"],
        "trend_signals.frequency",
        (2,),
    ),
    "date out of range": (
        [
            "ALTER TABLE clusters ALTER created_at DROP DEFAULT, ALTER created_at TYPE date",
            "UPDATE clusters SET created_at = '300000-01-01' WHERE id = 3",
        ],
        "clusters.created_at",
        (3,),
    ),
    "array with NaN": (
        [
            "DROP INDEX idx_text_summary_embedding",
            "ALTER TABLE text_summary ALTER embedding TYPE real[]",
            "UPDATE text_summary SET embedding[5] = 'NaN' WHERE id = 2",
            "UPDATE text_summary SET embedding[5] = 'Infinity' WHERE id = 3",
            "UPDATE text_summary SET embedding[5] = NULL WHERE id = 4",
        ],
        "text_summary.embedding",
        (2, 3, 4),
    ),
}


@pytest.mark.parametrize(("statements", "column", "ids"), UNCONVERTIBLE.values(), ids=UNCONVERTIBLE)
def test_values_that_do_not_fit_are_never_cut(
    empty_database: Database, statements: list[str], column: str, ids: tuple[int, ...]
) -> None:
    create_legacy_database(empty_database, "serial_ids")
    execute(empty_database, *statements)
    if column == DEVIATION:
        assert_refused(empty_database, column, ids)
    before = dump(empty_database)
    (question,) = read_plan(empty_database, column).open_questions
    assert (question.object, question.ids, question.advice) == (f"column {column}", ids, FIX_ROWS)
    with pytest.raises(DecisionRequired, match=column):
        apply(empty_database, column)
    assert dump(empty_database) == before


def test_arrays_become_vectors_in_a_database_without_the_extension(empty_database: Database) -> None:
    execute(
        empty_database,
        "CREATE TABLE text_summary (id serial PRIMARY KEY, client_id bigint NOT NULL, text_field text NOT NULL, "
        "embedding real[])",
        "INSERT INTO text_summary (client_id, text_field, embedding) SELECT 1, 'a', array_agg(sin(n)::real) "
        "FROM generate_series(1, 384) n",
    )
    before = empty_database.query("SELECT embedding FROM text_summary")
    apply(empty_database)
    assert empty_database.query("SELECT embedding::real[] FROM text_summary") == before


@pytest.mark.parametrize("name", ["anomaly_log.colour", "clients.id"])
def test_loss_of_unknown_column_is_rejected(empty_database: Database, name: str) -> None:
    create_legacy_database(empty_database, "serial_ids")
    with pytest.raises(DecisionRequired, match=rf"--accept-loss {name}: there is no such column of revision 003"):
        read_plan(empty_database, name)


def test_names_of_columns_are_parsed() -> None:
    assert adoption.parse_columns(["a.b", "c.d", "a.b"]) == ("a.b", "c.d")
    for invalid in ("a", "a.b.c", ".b", "a.", ""):
        with pytest.raises(ValueError, match=r"write TABLE\.COLUMN"):
            adoption.parse_columns([invalid])
