"""Databases with policies, logins that they restrict, and rows of the clients 7 and 8."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from psycopg import sql

from support.logins import drop_group_roles
from support.sample_rows import TABLES
from syntegra_db.client_policies import DEFAULT_PREFIX
from syntegra_db.tenancy import enable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database, Server

SERVICE = "syntegra_test_service"
READER = "syntegra_test_reader"
ADMIN = "syntegra_test_admin"
LOGINS = {SERVICE: "syntegra_service", READER: "syntegra_reader", ADMIN: "syntegra_admin"}
CLIENT_TABLES = tuple(table for table in TABLES if table != "trend_signals")
CLIENTS = (7, 8)
SOURCES_PER_CLIENT = 2
KPIS_PER_CLIENT = 5
ROWS = """
    INSERT INTO data_sources (client_id, name, type)
    SELECT client, 'source ' || n, 'simple_csv'
    FROM unnest(ARRAY[7, 8]) AS client, generate_series(1, 2) AS n;
    INSERT INTO kpi_summary (client_id, source_id, kpi_name, kpi_value, period_start, period_end)
    SELECT client_id, min(id), 'kpi ' || n, n, now(), now()
    FROM data_sources, generate_series(1, 5) AS n GROUP BY client_id, n ORDER BY client_id, n;
    INSERT INTO anomaly_log (client_id, source_id, kpi_name, value)
    SELECT client_id, min(id), 'kpi', 1 FROM data_sources GROUP BY client_id;
    INSERT INTO processed_data (client_id, source_type, data) VALUES (7, 'retail', '{}'), (8, 'retail', '{}');
    INSERT INTO text_summary (client_id, text_field) VALUES (7, 'seven'), (8, 'eight');
    INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (7, 1, '{}'), (8, 1, '{}');
    INSERT INTO trend_signals (sector, term, period_start, period_end) VALUES ('retail', 'term', now(), now());
"""


@contextmanager
def protected_database(server: Server, template: str, name: str | None = None) -> Iterator[Database]:
    """Yield a database with policies, rows of two clients, and one login of each group."""
    with ExitStack() as roles:
        drop_group_roles(server, DEFAULT_PREFIX)
        roles.callback(drop_group_roles, server, DEFAULT_PREFIX)
        for login in LOGINS:
            roles.enter_context(server.role(login))
        # Its grants keep the roles from being dropped before it.
        with server.database(template, name) as database:
            enable(database.engine)
            for login, group in LOGINS.items():
                database.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(login)))
            database.execute(ROWS)
            yield database
