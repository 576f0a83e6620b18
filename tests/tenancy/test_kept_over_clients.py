"""What a session keeps when its client changes, and what its statements can find out about hidden rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from support.clients import CLIENT_TABLES
from support.two_clients import CLIENT_7, VIEWERS, WITH_SOURCE
from support.viewed_statements import Connection, attempt, filled, results, set_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.viewed_statements import Observed

SERVICE, READER, BOUND = VIEWERS["service"], VIEWERS["reader"], VIEWERS["bound"]
ORDER = ("7", "8", "", "8", "7", "7", "7", "9", "7")
QUERIES: dict[str, tuple[LiteralString, list[Any]]] = {
    "all rows": ("SELECT client_id FROM {t}", []),
    "a parameter": ("SELECT client_id FROM {t} WHERE id > %s", [0]),
    "a parameter for the client": ("SELECT client_id FROM {t} WHERE client_id = %s", [8]),
    "aggregate": ("SELECT min(client_id) FROM {t} HAVING count(*) > %s", [0]),
    "change": ("UPDATE {t} SET client_id = client_id WHERE id > %s RETURNING client_id", [0]),
}


@pytest.fixture
def service(observed: Observed) -> Iterator[Connection]:
    """Yield a connection of a service in a transaction that is rolled back."""
    connection = observed.connection_of(SERVICE)
    with connection.transaction(force_rollback=True):
        yield connection


@pytest.mark.each("query")
@pytest.mark.parametrize("mode", ["auto", "force_generic_plan"])
@pytest.mark.parametrize("table", CLIENT_TABLES)
@pytest.mark.parametrize("query", QUERIES)
def test_prepared_statement_follows_a_change_of_client(
    service: Connection, query: str, table: str, mode: LiteralString
) -> None:
    statement, parameters = filled(QUERIES[query][0], table), QUERIES[query][1]
    service.execute(sql.SQL("SET LOCAL plan_cache_mode = {}").format(sql.SQL(mode)))
    service.prepare_threshold = 0
    for client in ORDER:
        set_client(service, client)
        found = {row[0] for row in service.execute(statement, parameters, prepare=True)}
        assert found == {int(client or 0)} & {7, 8} & ({8} if parameters == [8] else {7, 8})
    plans = "SELECT sum(generic_plans) FROM pg_prepared_statements WHERE statement LIKE %s"
    prepared = statement.as_string().replace("%s", "$1").partition("HAVING")[0] + "%"
    assert service.execute(plans, [prepared]).fetchone()[0] > 0  # type: ignore[index]
    service.prepare_threshold = None


@pytest.mark.parametrize("table", CLIENT_TABLES)
@pytest.mark.parametrize("order", ["", "ORDER BY client_id DESC"])
def test_cursor_that_was_not_read_follows_a_change_of_client(service: Connection, table: str, order: Any) -> None:
    set_client(service, "8")
    service.execute(filled("DECLARE kept CURSOR FOR SELECT client_id FROM {t} ", table) + sql.SQL(order))
    set_client(service, "7")
    assert {row[0] for row in service.execute("FETCH ALL FROM kept")} == {7}


@pytest.mark.parametrize("table", CLIENT_TABLES)
def test_cursor_ends_with_the_transaction_of_its_client(observed: Observed, table: str) -> None:
    connection = observed.connection_of(SERVICE)
    with connection.transaction():
        set_client(connection, "8")
        connection.execute(filled("DECLARE kept CURSOR FOR SELECT client_id FROM {t}; FETCH 1 FROM kept", table))
    with connection.transaction(force_rollback=True):
        set_client(connection, "7")
        assert attempt(connection, sql.Composed([sql.SQL("FETCH ALL FROM kept")])) == "34000"


@pytest.mark.parametrize("viewer", [SERVICE, READER, BOUND], ids=["service", "reader", "bound"])
@pytest.mark.parametrize("table", CLIENT_TABLES)
def test_setting_of_an_ended_transaction_does_not_apply(observed: Observed, table: str, viewer: Any) -> None:
    connection = observed.connection_of(viewer)
    for end in ("COMMIT", "ROLLBACK"):
        connection.execute("BEGIN")
        set_client(connection, "8")
        connection.execute(filled("SELECT FROM {t}", table))
        connection.execute(end)
        seen = {row[0] for row in connection.execute(filled("SELECT client_id FROM {t}", table))}
        assert seen == ({7} if viewer is BOUND else set())


# Keys and numbers of hidden rows.


@pytest.mark.parametrize("table", WITH_SOURCE)
@pytest.mark.parametrize(
    "statement",
    ["UPDATE {t} SET source_id = {source}", "INSERT INTO {t} ({columns}) SELECT {columns_for_7} FROM {known}"],
    ids=["UPDATE", "INSERT"],
)
def test_source_of_another_client_is_refused_as_one_that_is_nowhere(
    service: Connection, observed: Observed, table: str, statement: LiteralString
) -> None:
    [(source,)] = observed.owner.execute("SELECT min(id) FROM data_sources WHERE client_id = 8").fetchall()
    errors = []
    for candidate in (source, 10**12):
        set_client(service, "7")
        with pytest.raises(psycopg.errors.ForeignKeyViolation) as error, service.transaction():
            service.execute(filled(statement, table, source=candidate))
        diagnosis = error.value.diag
        texts = (diagnosis.message_primary, diagnosis.message_detail, diagnosis.message_hint, diagnosis.constraint_name)
        errors.append([re.sub(rf"\b{candidate}\b", "…", line or "") for line in texts])
    assert errors[0] == errors[1]


# The next id is that of a row of client 8, as after a restore without the sequences.
TAKEN: dict[str, tuple[LiteralString, str | list[str]]] = {
    "nothing else": ("", "23505"),
    "DO NOTHING": ("ON CONFLICT DO NOTHING RETURNING id", ["INSERT 0 0"]),
    "DO NOTHING by key": ("ON CONFLICT (id) DO NOTHING", ["INSERT 0 0"]),
    "DO UPDATE": ("ON CONFLICT (id) DO UPDATE SET client_id = 7 RETURNING id", "42501"),
    "DO UPDATE with a false condition": ("ON CONFLICT (id) DO UPDATE SET client_id = 7 WHERE false", ["INSERT 0 0"]),
}


@pytest.mark.each("way")
@pytest.mark.parametrize("table", CLIENT_TABLES)
@pytest.mark.parametrize("way", TAKEN)
def test_row_with_the_id_of_a_hidden_row_changes_nothing(observed: Observed, table: str, way: str) -> None:
    conflict, expected = TAKEN[way]
    statement = filled("INSERT INTO {t} ({columns}) SELECT {columns} FROM {t} LIMIT 1 ", table) + sql.SQL(conflict)
    next_id = filled("SELECT setval(pg_get_serial_sequence({name}, 'id'), min(id), false) FROM {known}", table)
    last_id = filled("SELECT setval(pg_get_serial_sequence({name}, 'id'), max(id)) FROM public.{t}", table)
    observed.owner.execute(next_id)
    try:
        assert observed.outcome(SERVICE, statement) == expected
    finally:
        observed.owner.execute(last_id)


@pytest.mark.parametrize("table", CLIENT_TABLES)
def test_sequence_gives_services_the_next_id_only(observed: Observed, table: str) -> None:
    statement = filled(
        "SELECT nextval(pg_get_serial_sequence({name}, 'id')); SELECT currval(pg_get_serial_sequence({name}, 'id'))",
        table,
    )
    for who, viewer in VIEWERS.items():
        found = observed.outcome(viewer, statement)
        if viewer.writes:
            [first, second] = [row for row in found if row.startswith("(")]
            assert first == second
        else:
            assert (who, found) == (who, "42501")


@pytest.mark.parametrize("table", CLIENT_TABLES)
def test_statistics_of_values_are_hidden(observed: Observed, table: str) -> None:
    query = filled("SELECT attname FROM pg_stats WHERE schemaname = 'public' AND tablename = {name}", table)
    assert len(results(observed.owner, query)) > 1
    for who, viewer in VIEWERS.items():
        assert (who, observed.outcome(viewer, query)) == (who, ["SELECT 0"])


def test_rows_of_the_module_have_both_clients(observed: Observed) -> None:
    for table in CLIENT_TABLES:
        for schema, clients in (("public", {7, 8}), (CLIENT_7, {7})):
            query = sql.SQL("SELECT client_id FROM {}").format(sql.Identifier(schema, table))
            assert {row[0] for row in observed.owner.execute(query)} == clients
