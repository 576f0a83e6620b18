"""Every way of SQL to a table with clients: client 7 neither reads, changes nor counts the rows of client 8.

What a login gets is compared with what the owner gets from the same statement on a copy that has only the rows of
client 7, or none if no client is set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest

from support.clients import CLIENT_TABLES
from support.two_clients import NO_CLIENT, VIEWERS
from support.viewed_statements import filled

if TYPE_CHECKING:
    from support.viewed_statements import Observed

# {t}: the table, {known}: a row of client 8 that every login knows, {columns}: all but the id.
READS: dict[str, LiteralString] = {
    "SELECT": "SELECT t::text FROM {t} AS t",
    "SELECT of client 8": "SELECT t::text FROM {t} AS t WHERE client_id = 8",
    "SELECT of a known id": "SELECT t::text FROM {t} AS t WHERE id = ANY (SELECT id FROM {known})",
    "SELECT by index": "SET LOCAL enable_seqscan = off; SELECT t::text FROM {t} AS t WHERE client_id >= 0",
    "SELECT by place": "SELECT id FROM {t} WHERE ctid = ANY (ARRAY(SELECT format('(%s,%s)', n / 99, n % 99)::tid"
    " FROM generate_series(1, 297) AS n))",
    "SELECT of a sample": "SELECT id FROM {t} TABLESAMPLE BERNOULLI (100)",
    "subselect": "SELECT (SELECT max(client_id) FROM {t}), ARRAY(SELECT id FROM {t} ORDER BY id)",
    "CTE": "WITH found AS MATERIALIZED (SELECT * FROM {t}) SELECT found::text FROM found",
    "UNION": "SELECT id FROM {t} UNION ALL SELECT -id FROM {t} WHERE client_id <> 7",
    "EXCEPT": "SELECT client_id FROM {known} EXCEPT SELECT client_id FROM {t}",
    "join of two tables": "SELECT t.id, source.id, source.client_id FROM {t} AS t CROSS JOIN data_sources AS source",
    "outer join": "SELECT k.client_id, t.id FROM {known} AS k LEFT JOIN {t} AS t ON t.client_id >= k.client_id",
    "self join": "SELECT a.id, b.id FROM {t} AS a JOIN {t} AS b ON a.client_id <= b.client_id",
    "lateral join": "SELECT t.id, n FROM {t} AS t, LATERAL (SELECT count(*) AS n FROM {t} AS o WHERE o.id > t.id) AS o",
    "anti join": "SELECT k.client_id FROM {known} AS k WHERE NOT EXISTS (SELECT FROM {t} AS t WHERE t.id = k.id)",
    "aggregate": "SELECT count(*), sum(client_id), max(id), count(DISTINCT client_id), bool_or(client_id = 8) FROM {t}",
    "parallel aggregate": "SET LOCAL debug_parallel_query = on; SELECT count(*), sum(client_id) FROM {t}",
    "GROUP BY": "SELECT client_id, count(*) FROM {t} GROUP BY ROLLUP (client_id)",
    "EXISTS": "SELECT EXISTS (SELECT FROM {t} WHERE client_id = 8), EXISTS (SELECT FROM {t})",
    "window": "SELECT id, count(*) OVER (), lag(client_id) OVER (ORDER BY client_id DESC), rank() OVER (ORDER BY id)"
    " FROM {t}",
    "COPY TO": "COPY {t} TO STDOUT",
    "COPY of a query": "COPY (SELECT client_id, count(*) FROM {t} GROUP BY 1) TO STDOUT",
    "cursor": "DECLARE found SCROLL CURSOR FOR SELECT id FROM {t}; FETCH ALL FROM found; FETCH BACKWARD ALL FROM found",
    "cursor with hold": "DECLARE held CURSOR WITH HOLD FOR SELECT id FROM {t}; FETCH ALL FROM held",
    "temporary table": "CREATE TEMPORARY TABLE mine AS SELECT * FROM {t}; SELECT mine::text FROM mine",
    "view of the owner": "SELECT * FROM {view}",
    "view of the login": "CREATE TEMPORARY VIEW mine AS SELECT id, client_id FROM {t}; SELECT * FROM mine",
    "function": "CREATE FUNCTION pg_temp.mine() RETURNS SETOF bigint LANGUAGE sql AS 'SELECT id FROM {t}';"
    " SELECT pg_temp.mine()",
    "SECURITY DEFINER function": "CREATE FUNCTION pg_temp.mine() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS"
    " 'BEGIN RETURN (SELECT count(*) FROM {t}); END'; SELECT pg_temp.mine()",
    "function that keeps its arguments": "CREATE FUNCTION pg_temp.keep(bigint) RETURNS boolean LANGUAGE plpgsql"
    " COST 0.01 AS $$ BEGIN PERFORM set_config('test.seen', concat(current_setting('test.seen', true), $1, ' '), true);"
    " RETURN true; END $$; SELECT FROM {t} WHERE pg_temp.keep(client_id); SELECT nullif(current_setting('test.seen',"
    " true), '')",
    "operator that fails": "SELECT id FROM {t} WHERE 1 / (client_id - 8) < 1",
    "operator that fails in a join": "SELECT t.id FROM {t} AS t JOIN {known} AS k ON 0 = 1 / (t.client_id - 8)",
}
# Services may do these with the rows that they see.
CHANGES: dict[str, LiteralString] = {
    "INSERT of visible rows": "INSERT INTO {t} ({columns}) SELECT {columns} FROM {t} RETURNING client_id",
    "INSERT without conflict": "INSERT INTO {t} ({columns}) SELECT {columns} FROM {t} ON CONFLICT DO NOTHING"
    " RETURNING client_id",
    "UPDATE": "UPDATE {t} SET client_id = 7",
    "UPDATE to the same values": "UPDATE {t} AS t SET client_id = client_id RETURNING t::text",
    "UPDATE of client 8": "UPDATE {t} AS t SET client_id = 7 WHERE client_id = 8 RETURNING t::text",
    "UPDATE of a known id": "UPDATE {t} AS t SET client_id = 7 FROM {known} AS k WHERE t.id = k.id RETURNING k.id",
    "UPDATE from a table": "UPDATE {t} AS t SET client_id = 7 FROM data_sources AS s WHERE s.client_id <> 9",
    "DELETE": "DELETE FROM {t}",
    "DELETE with RETURNING": "DELETE FROM {t} AS t RETURNING t::text",
    "DELETE of a known id": "DELETE FROM {t} AS t USING {known} AS k WHERE t.id = k.id RETURNING k.id",
    "DELETE by place": "DELETE FROM {t} WHERE ctid = ANY (ARRAY(SELECT format('(%s,%s)', n / 99, n % 99)::tid"
    " FROM generate_series(1, 297) AS n))",
    "DELETE in a CTE": "WITH gone AS (DELETE FROM {t} RETURNING client_id) SELECT count(*), sum(client_id) FROM gone",
    "DELETE in a function": "DO 'BEGIN DELETE FROM {t}; END'; SELECT count(*) FROM {t}",
    "MERGE that updates": "MERGE INTO {t} AS t USING {known} ON t.id > 0 WHEN MATCHED THEN UPDATE SET client_id = 7",
    "MERGE that deletes": "MERGE INTO {t} AS t USING {known} AS k ON t.id > 0 WHEN MATCHED THEN DELETE",
    "MERGE of a known id": "MERGE INTO {t} AS t USING {known} AS k ON t.id = k.id WHEN MATCHED THEN DELETE",
    "SELECT FOR UPDATE": "SELECT id FROM {t} FOR UPDATE",
    "cursor for updates": "DECLARE mine CURSOR FOR SELECT id FROM {t} FOR UPDATE; MOVE 1 IN mine;"
    " UPDATE {t} SET client_id = 7 WHERE CURRENT OF mine",
}
POLICY, PRIVILEGE, COPY_FROM = "42501", "42501", "0A000"
# A service with a client gets the SQLSTATE; one without a client may instead see no row that it could change.
REFUSED: dict[str, tuple[str, LiteralString]] = {
    "INSERT for client 8": (POLICY, "INSERT INTO {t} ({columns}) SELECT {columns} FROM {known}"),
    "INSERT with an id": (PRIVILEGE, "INSERT INTO {t} SELECT * FROM {known}"),
    "INSERT of visible rows for client 8": (
        POLICY,
        "WITH mine AS (SELECT * FROM {t}) INSERT INTO {t} ({columns}) SELECT {columns_for_8} FROM mine RETURNING id",
    ),
    "UPDATE to client 8": (POLICY, "UPDATE {t} SET client_id = 8"),
    "UPDATE to no client": (POLICY, "UPDATE {t} SET client_id = -client_id RETURNING id"),
    "UPDATE of the id": (PRIVILEGE, "UPDATE {t} SET id = k.id FROM {known} AS k"),
    "MERGE that inserts": (
        POLICY,
        """MERGE INTO {t} AS t USING {known} AS k ON t.id = k.id
        WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({known_columns})""",
    ),
    "MERGE that reads no column": (POLICY, "MERGE INTO {t} USING {known} AS k ON true WHEN MATCHED THEN DELETE"),
    "MERGE to client 8": (
        POLICY,
        "MERGE INTO {t} AS t USING {known} AS k ON t.id > 0 WHEN MATCHED THEN UPDATE SET client_id = k.client_id",
    ),
    "COPY FROM": (COPY_FROM, "COPY {t} ({columns}) FROM STDIN"),
    "TRUNCATE": (PRIVILEGE, "TRUNCATE {t} CASCADE"),
}
ESCAPES: dict[str, LiteralString] = {
    "row_security off": "SET LOCAL row_security = off; SELECT FROM {t}",
    "row-level security disabled": "ALTER TABLE {t} DISABLE ROW LEVEL SECURITY",
    "policy dropped": "DROP POLICY client_select ON {t}",
    "policy created": "CREATE POLICY mine ON {t} USING (true)",
    "trigger": "CREATE TRIGGER mine BEFORE UPDATE ON {t} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "rule": "CREATE RULE mine AS ON DELETE TO {t} DO ALSO SELECT 1",
    "index": "CREATE INDEX mine ON {t} (client_id)",
    "inheritance": "CREATE TEMPORARY TABLE mine () INHERITS ({t})",
    "owner": "ALTER TABLE {t} OWNER TO CURRENT_USER",
    "role of administrators": "SET LOCAL ROLE syntegra_admin; SELECT FROM {t}",
    "sequence set": "SELECT setval(pg_get_serial_sequence({name}, 'id'), 1)",
    "sequence read": "SELECT last_value FROM {sequence}",
}


@pytest.mark.each("way")
@pytest.mark.parametrize("table", CLIENT_TABLES)
@pytest.mark.parametrize("way", READS)
def test_read_returns_rows_of_own_client_only(observed: Observed, way: str, table: str) -> None:
    statement = filled(READS[way], table)
    for who, viewer in VIEWERS.items():
        assert (who, observed.outcome(viewer, statement)) == (who, observed.visible(viewer, statement))


@pytest.mark.each("way")
@pytest.mark.parametrize("table", CLIENT_TABLES)
@pytest.mark.parametrize("way", CHANGES)
def test_change_affects_rows_of_own_client_only(observed: Observed, way: str, table: str) -> None:
    statement = filled(CHANGES[way], table)
    for who, viewer in VIEWERS.items():
        expected = observed.visible(viewer, statement) if viewer.writes else PRIVILEGE
        assert (who, observed.outcome(viewer, statement)) == (who, expected)


@pytest.mark.each("way")
@pytest.mark.parametrize("table", CLIENT_TABLES)
@pytest.mark.parametrize("way", REFUSED)
def test_change_for_client_8_is_refused(observed: Observed, way: str, table: str) -> None:
    sqlstate, template = REFUSED[way]
    statement = filled(template, table)
    for who, viewer in VIEWERS.items():
        expected: list[str] | str = sqlstate if viewer.writes else PRIVILEGE
        found = observed.outcome(viewer, statement)
        if viewer.sees == NO_CLIENT and not isinstance(found, str):
            expected = observed.visible(viewer, statement)
        assert (who, found) == (who, expected)


@pytest.mark.each("way")
@pytest.mark.parametrize("table", CLIENT_TABLES)
@pytest.mark.parametrize("way", ESCAPES)
def test_protection_is_changed_by_no_login(observed: Observed, way: str, table: str) -> None:
    statement = filled(ESCAPES[way], table)
    for who, viewer in VIEWERS.items():
        assert (who, observed.outcome(viewer, statement)) == (who, PRIVILEGE)


SHARED = "trend_signals"
SHARED_WRITES: tuple[LiteralString, ...] = (
    "INSERT INTO {t} ({columns}) SELECT {columns} FROM {t}",
    "INSERT INTO {t} ({columns}) SELECT {columns} FROM {t} ON CONFLICT (id) DO UPDATE SET term = 'x'",
    "UPDATE {t} SET term = 'x'",
    "DELETE FROM {t}",
    "MERGE INTO {t} AS t USING {t} AS o ON t.id = o.id WHEN MATCHED THEN UPDATE SET term = 'x'",
    "COPY {t} ({columns}) FROM STDIN",
    "TRUNCATE {t}",
    "SELECT id FROM {t} FOR UPDATE",
    "SELECT nextval(pg_get_serial_sequence({name}, 'id'))",
)


@pytest.mark.parametrize(
    "statement", ["SELECT t::text FROM {t} AS t", "COPY {t} TO STDOUT", "SELECT count(*) FROM {t}"]
)
def test_shared_table_is_read_by_all_but_bound_logins(observed: Observed, statement: LiteralString) -> None:
    for who, viewer in VIEWERS.items():
        expected = PRIVILEGE if who == "bound" else observed.visible(viewer, filled(statement, SHARED))
        assert (who, observed.outcome(viewer, filled(statement, SHARED))) == (who, expected)


@pytest.mark.parametrize("statement", SHARED_WRITES)
def test_shared_table_is_written_by_no_service(observed: Observed, statement: LiteralString) -> None:
    for who, viewer in VIEWERS.items():
        assert (who, observed.outcome(viewer, filled(statement, SHARED))) == (who, PRIVILEGE)
