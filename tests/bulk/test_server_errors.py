"""Errors of the server: the message has names and numbers, and no values."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from support.bulk_assertions import GOOD, assert_rejected
from support.bulk_rows import PERIOD, SECRET, START, kpi
from support.servers import Database
from support.sessions import session_on
from syntegra_db import migrations
from syntegra_db.bulk import copy_rows
from syntegra_db.bulk._server_errors import parse_copy_context
from syntegra_db.models import AnomalyLog, Base, Cluster, DataSource, KpiSummary, TrendSignal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from support.servers import Server


@pytest.mark.parametrize(
    ("model", "column", "value", "constraint"),
    [
        (KpiSummary, "kpi_value", Decimal("NaN"), "ck_kpi_summary_kpi_value_finite"),
        (KpiSummary, "kpi_value", float("inf"), "ck_kpi_summary_kpi_value_finite"),
        (AnomalyLog, "expected_value", float("-inf"), "ck_anomaly_log_expected_value_finite"),
        (KpiSummary, "period_end", START.replace(year=2025), "ck_kpi_summary_period_order"),
        (TrendSignal, "frequency", -1, "ck_trend_signals_frequency_not_negative"),
        (Cluster, "silhouette_score", float("nan"), "ck_clusters_silhouette_range"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"key": ["id"]}])
def test_row_that_violates_a_check_is_rejected(  # noqa: PLR0913, PLR0917  a case
    session: Session, model: type[Base], column: str, value: Any, constraint: str, options: Any
) -> None:
    rows = [GOOD[model], {**GOOD[model], "id": 2, column: value}]
    error = assert_rejected(session, model, rows, **options)
    assert (error.row, error.constraint, error.sqlstate) == (2, constraint, "23514")
    assert f"Row 2: it violates the CHECK {constraint} of" in str(error)


@pytest.mark.parametrize("options", [{}, {"key": ["id"]}])
def test_null_in_a_required_column_is_rejected(session: Session, options: Any) -> None:
    secret = {**GOOD[DataSource], "id": 2, "name": None}
    error = assert_rejected(session, DataSource, [GOOD[DataSource], secret], **options)
    assert (error.row, error.column) == (2, "name")
    assert "Row 2: data_sources.name cannot be NULL" in str(error)


RAISED = [
    "RAISE EXCEPTION 'bad %', NEW.config_json",
    *(
        f"RAISE EXCEPTION 'bad %', NEW.config_json USING ERRCODE = '{state}'"
        for state in ("45000", "42501", "55P03", "22000", "XX000")
    ),
    "RAISE unique_violation USING CONSTRAINT = NEW.config_json, TABLE = NEW.config_json, COLUMN = NEW.config_json",
]


def add_trigger(session: Session, statement: str) -> None:
    session.execute(
        text(
            f"CREATE FUNCTION run() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {statement}; RETURN NEW; END $$;"
            " CREATE TRIGGER run BEFORE INSERT ON data_sources FOR EACH ROW EXECUTE FUNCTION run()"
        )
    )
    session.commit()


@pytest.mark.parametrize("statement", [*RAISED, "EXECUTE 'SELECT ' || quote_ident(NEW.config_json ->> 'token')"])
@pytest.mark.parametrize("options", [{}, {"key": ["id"]}])
def test_message_of_a_trigger_is_not_shown(session: Session, statement: str, options: Any) -> None:
    add_trigger(session, statement)
    error = assert_rejected(session, DataSource, [{**GOOD[DataSource], "config_json": {"token": SECRET}}], **options)
    assert error.row == (None if options else 1)
    assert f"a trigger or function of data_sources rejected it (SQLSTATE {error.sqlstate})" in str(error)
    assert (error.column, error.constraint) == (None, None)


@pytest.mark.parametrize("options", [{}, {"key": ["id"]}])
def test_table_that_a_trigger_writes_is_named(session: Session, options: Any) -> None:
    session.execute(text("CREATE TABLE audit (source text PRIMARY KEY, note text NOT NULL DEFAULT '')"))
    add_trigger(session, "INSERT INTO audit VALUES (NEW.config_json ->> 'token')")
    rows = [{**GOOD[DataSource], "config_json": {"token": SECRET}, "id": n} for n in (1, 2)]
    error = assert_rejected(session, DataSource, rows, **options)
    assert "audit already has a row with the same key (audit_pkey)" in str(error)
    assert error.constraint == "audit_pkey"
    session.execute(text("ALTER TABLE audit ALTER note DROP DEFAULT"))
    session.commit()
    assert "audit.note cannot be NULL" in str(assert_rejected(session, DataSource, rows, **options))


def test_missing_column_without_default_is_rejected(session: Session) -> None:
    error = assert_rejected(session, DataSource, [{"client_id": 1, "name": "x", "config_json": {"token": SECRET}}])
    assert (error.row, error.column) == (1, "type")
    rows = [{"client_id": 1, "kpi_value": 1, **PERIOD}]
    error = assert_rejected(session, KpiSummary, rows, key=["client_id"])
    assert (error.row, error.column) == (None, "kpi_name")
    assert "A row of the input: kpi_summary.kpi_name cannot be NULL" in str(error)


def test_existing_key_is_rejected(session: Session) -> None:
    error = assert_rejected(session, DataSource, [{**GOOD[DataSource], "id": n} for n in (1, 2, 2, 3)])
    assert (error.row, error.constraint, error.sqlstate) == (3, "pk_data_sources", "23505")


@pytest.mark.parametrize("options", [{}, {"key": ["client_id"]}])
def test_missing_data_source_is_rejected(session: Session, options: Any) -> None:
    error = assert_rejected(session, KpiSummary, [kpi(1, source_id=None), kpi(2, source_id=99)], **options)
    assert (error.row, error.column, error.constraint) == (None, None, "fk_kpi_summary_source")
    assert str(error).startswith("A row of the input: the row that it references does not exist (fk_kpi_summary_source")


@pytest.mark.parametrize(
    "context",
    [
        "COPY text_summary, line 12, column language",
        "COPY text_summary, línea 12, columna language",
        "COPY text_summary, Zeile 12, Spalte language",
        "COPY text_summary, ligne 12, colonne language",
        "COPY text_summary, строка 12, столбец language",
        "COPY text_summary, 第 12 行, 列 language",
        "text_summaryのCOPY、行 12、列 language",
        "text_summary 복사, 12번째 줄, language 열",
        "JSON data, line 1: COPY text_summary, line 3, column sentiment\nCOPY text_summary, line 12, column language",
    ],
)
def test_copy_context_in_every_language_has_row_and_column(context: str) -> None:
    assert parse_copy_context(context, "text_summary", ["client_id", "sentiment", "language"]) == (12, "language")


@pytest.mark.parametrize(
    "context",
    [
        "",
        "COPY text_summary_of_others, line 12, column language",
        'PL/pgSQL function check_text() line 5 at RAISE\nSQL statement "COPY text_summary, line 3"',
    ],
)
def test_context_of_something_else_has_no_row(context: str) -> None:
    assert parse_copy_context(context, "text_summary", ["language"]) == (None, None)


@pytest.fixture(scope="module")
def latin_database(server: Server) -> Iterator[Database]:
    """Yield a database at head whose encoding has no euro sign."""
    with server.database(options="ENCODING LATIN1 LOCALE 'C' LOCALE_PROVIDER libc") as database:
        migrations.upgrade(url=database.url)
        yield database


@pytest.mark.parametrize("changes", [{"kpi_name": "€"}, {"metadata_": {"unit": "€"}}, {"metadata_": {"漢": 1}}])
@pytest.mark.parametrize("options", [{}, {"key": ["id"]}])
def test_character_that_the_database_cannot_store_is_reported(
    latin_database: Database, changes: Any, options: Any
) -> None:
    rows = [{"id": 1, **kpi(1), "metadata_": {"unit": "ñ"}}, {"id": 2, **kpi(2), "metadata_": {}, **changes}]
    with session_on(latin_database) as session:
        error = assert_rejected(session, KpiSummary, rows, **options)
    (column,) = changes
    assert (error.row, error.column) == (2, column.removesuffix("_"))
    assert f"the encoding of the database has no such character as one in kpi_summary.{error.column}" in str(error)


@pytest.mark.parametrize("changes", [{"kpi_name": "€"}, {"metadata_": {"unit": "€"}}])
def test_character_that_the_connection_cannot_send_is_reported(
    database: Database, server: Server, changes: Any
) -> None:
    url = server.url.set(database=database.url.database).update_query_dict({"client_encoding": "latin1"})
    with session_on(Database(url)) as session:
        rows = [{"id": 1, **kpi(1), "metadata_": {"unit": "ñ"}}, {"id": 2, **kpi(2), "metadata_": {}, **changes}]
        error = assert_rejected(session, KpiSummary, rows)
        assert error.row == 2
        assert "the encoding of the connection has no such character as one in kpi_summary." in str(error)
        copy_rows(session, KpiSummary, rows[:1])
        session.commit()
    assert database.query("SELECT metadata FROM kpi_summary") == [({"unit": "ñ"},)]
