"""Generated rows for every table, and digests that show whether a backup and a restore kept them."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from psycopg import sql

from syntegra_db.migrations.online import KeepAlikeOp, collect_functions
from syntegra_db.revisions import all_revisions, script_directory

if TYPE_CHECKING:
    from collections.abc import Collection

    import psycopg

    from support.servers import Database
    from syntegra_db.migrations.online import AlikeColumns

DIMENSIONS = 384
TABLES = (
    "data_sources",
    "processed_data",
    "kpi_summary",
    "text_summary",
    "trend_signals",
    "clusters",
    "anomaly_log",
)
# The share of all rows that each table gets; texts have embeddings.
SHARES = {
    "data_sources": 0.01,
    "processed_data": 0.29,
    "kpi_summary": 0.25,
    "text_summary": 0.1,
    "trend_signals": 0.1,
    "clusters": 0.1,
    "anomaly_log": 0.15,
}
# Vectors in a hundred clusters, as the embeddings of texts are: a direction plus noise.
DIRECTIONS = """
    CREATE TEMPORARY TABLE directions AS
    SELECT number, array_agg(random() - 0.5)::vector(384) AS direction
    FROM generate_series(0, 99) AS number, generate_series(1, 384) GROUP BY number
"""
NOISES = """
    CREATE TEMPORARY TABLE noises AS
    SELECT number, array_agg((random() - 0.5) * 0.5)::vector(384) AS noise
    FROM generate_series(0, 999) AS number, generate_series(1, 384) GROUP BY number
"""
STATEMENTS = {
    "data_sources": """
        INSERT INTO data_sources (client_id, name, type, config_json)
        SELECT n % 10, 'till "' || n || '"', E'a\\\\b\\tc', jsonb_build_object('path', E'\\\\.\\n', 'n', n)
        FROM generate_series(1, {rows}) AS n
    """,
    "processed_data": """
        INSERT INTO processed_data (client_id, source_id, source_type, data)
        SELECT n % 10, CASE WHEN n % 3 = 0 THEN source_id END, 'retail',
               jsonb_build_object('total', n / 7.0, 'text', md5(n::text))
        FROM generate_series(1, {rows}) AS n
        JOIN (SELECT client_id, min(id) AS source_id FROM data_sources GROUP BY client_id) AS sources
          ON client_id = n % 10
    """,
    "kpi_summary": """
        INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end)
        SELECT n % 10, 'kpi_' || n % 50, n / 3.0, now() - n * interval '1 minute', now()
        FROM generate_series(1, {rows}) AS n
    """,
    "text_summary": """
        INSERT INTO text_summary (client_id, text_field, sentiment, sentiment_score, keywords, embedding)
        SELECT n % 10, E'\\\\.\\n' || md5(n::text), NULLIF(n % 3, 0), random(), to_jsonb(ARRAY['k' || n % 1000]),
               direction + noise
        FROM generate_series(1, {rows}) AS n
        JOIN directions ON directions.number = n % 100 JOIN noises ON noises.number = n / 100 % 1000
    """,
    "trend_signals": """
        INSERT INTO trend_signals (sector, term, period_start, period_end, frequency, delta_pct, status)
        SELECT 'sector ' || n % 20, 'ñandú ' || n, now(), now(), n, random(), 'emergent'
        FROM generate_series(1, {rows}) AS n
    """,
    "clusters": """
        INSERT INTO clusters (client_id, cluster_id, features_json, silhouette_score)
        SELECT n, n % 7, jsonb_build_object('f', n % 100), 0.1 FROM generate_series(1, {rows}) AS n
    """,
    "anomaly_log": """
        INSERT INTO anomaly_log (client_id, kpi_name, value, severity)
        SELECT n % 10, 'kpi_' || n % 50, -n, 'critical' FROM generate_series(1, {rows}) AS n
    """,
}


def load_rows(database: Database, rows: int) -> None:
    """Insert `rows` rows in total; the ids of kpi_summary end before the last value of their sequence."""
    with database.connect() as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(DIRECTIONS)
        connection.execute(NOISES)
        for table, share in SHARES.items():
            statement = with_installed_names(connection, table, STATEMENTS[table])
            connection.execute(statement.replace("{rows}", str(max(1, round(rows * share)))).encode())
        connection.execute("SELECT nextval('kpi_summary_id_seq'), nextval('kpi_summary_id_seq')")


def with_installed_names(connection: psycopg.Connection, table: str, insert: str) -> str:
    """Return `insert` with the names that the columns have in this database: a revision can rename one."""
    query = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
    installed = {name for (name,) in connection.execute(query, (table,))}
    start, names, rest = re.split(r"(?<=\()([^()]*)(?=\))", insert, maxsplit=1)
    for pair in renamed_columns():
        for name, other in ((pair.old, pair.new), (pair.new, pair.old)):
            if pair.table == table and name not in installed and other in installed:
                names = re.sub(rf"\b{name}\b", other, names)
    return f"{start}{names}{rest}"


@cache
def renamed_columns() -> list[AlikeColumns]:
    """Return the columns that a revision renames."""
    upgrades = [collect_functions(script_directory().get_revision(revision).module)[0] for revision in all_revisions()]
    return [
        operation.columns
        for upgrade in upgrades
        for operation in (upgrade.operations if upgrade else ())
        if isinstance(operation, KeepAlikeOp)
    ]


def row_digests(database: Database, *tables: str, without: Collection[str] = ()) -> dict[str, Any]:
    """Return by table the number of rows, a checksum of them, and the state of the id sequence.

    The checksum is of the values by the names of their columns, except those in `without`, such as `clusters.centroid`.
    """
    query = sql.SQL(
        "SELECT count(*), sum(hashtextextended((to_jsonb(t) - {without}::text[])::text, 0)),"
        " (SELECT (last_value, is_called)::text FROM {sequence}) FROM {table} AS t"
    )
    with database.connect() as connection:
        connection.execute("SET DateStyle TO ISO, YMD; SET TimeZone TO UTC; SET extra_float_digits TO 1")
        return {
            name: connection.execute(
                query.format(
                    table=sql.Identifier(name),
                    sequence=sql.Identifier(f"{name}_id_seq"),
                    without=[column.partition(".")[2] for column in without if column.startswith(f"{name}.")],
                )
            ).fetchone()
            for name in tables or TABLES
        }
