"""The proxy of the fault tests loses what it says, and nothing else."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from support.tcp_proxy import tcp_proxy
from syntegra_db.connections import conninfo

if TYPE_CHECKING:
    from support.servers import Database


def insert_through_proxy(connection: psycopg.Connection) -> None:
    connection.execute("INSERT INTO data_sources (client_id, name, type) VALUES (1, 'till', 'simple_csv')")
    connection.commit()


def test_proxy_losing_answer_leaves_transaction_committed(database: Database) -> None:
    with tcp_proxy(database.url) as proxy, closing(psycopg.connect(conninfo(proxy.url))) as connection:
        insert_through_proxy(connection)
        proxy.lose_answer(then_refuse=True)
        with pytest.raises(psycopg.OperationalError):
            insert_through_proxy(connection)
        assert proxy.lost.is_set()
        assert database.query("SELECT count(*) FROM data_sources") == [(2,)]
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(conninfo(proxy.url))
        proxy.resume()
        psycopg.connect(conninfo(proxy.url)).close()


def test_silent_proxy_forwards_again_after_resume(database: Database) -> None:
    with tcp_proxy(database.url) as proxy, psycopg.connect(conninfo(proxy.url)) as connection:
        proxy.silence()
        insertion = threading.Thread(target=insert_through_proxy, args=(connection,))
        insertion.start()
        insertion.join(0.3)
        assert insertion.is_alive()
        proxy.resume()
        insertion.join()
        assert database.query("SELECT count(*) FROM data_sources") == [(1,)]


def test_cut_proxy_ends_connections_and_accepts_new_ones(database: Database) -> None:
    with tcp_proxy(database.url) as proxy, closing(psycopg.connect(conninfo(proxy.url))) as connection:
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            insert_through_proxy(connection)
        psycopg.connect(conninfo(proxy.url)).close()
