"""A connection that fails, in each of its ways, against a server that asks for passwords."""

from __future__ import annotations

import re
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from psycopg import sql
from sqlalchemy import text

from support.commands import run
from support.servers import ROLE_PASSWORD
from support.tcp_proxy import tcp_proxy
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    DatabaseNotFound,
    ServerUnreachable,
    SettingsError,
)
from syntegra_db.network import limit_session
from syntegra_db.settings import parse_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL

    from support.servers import Database, Server

ROLE = "syntegra_login"


@pytest.fixture
def login(server: Server, database: Database) -> Iterator[URL]:
    """The URL of a role that the server lets in with its password only."""
    with server.role(ROLE), password_required(database):
        database.execute("GRANT SELECT ON alembic_version TO syntegra_login")
        yield database.url_as(ROLE)
        database.execute("DROP OWNED BY syntegra_login")


@contextmanager
def password_required(database: Database) -> Iterator[None]:
    """Put a rule for the role before all others, since an embedded server trusts everyone."""
    ((file, rules),) = database.query("SELECT current_setting('hba_file'), pg_read_file(current_setting('hba_file'))")
    role_rules = f"local all {ROLE} scram-sha-256\nhost all {ROLE} all scram-sha-256\n"
    write_rules(database, file, role_rules + rules)
    try:
        yield
    finally:
        write_rules(database, file, rules)


def write_rules(database: Database, file: str, rules: str) -> None:
    lines = [(line,) for line in rules.splitlines() if line and not line.startswith("#")]
    # COPY would quote a rule that holds its quote or its delimiter.
    copy = sql.SQL(
        "COPY (SELECT rule FROM rules ORDER BY number) TO {} (FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02')"
    )
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE rules (number serial, rule text)")
        cursor.executemany("INSERT INTO rules (rule) VALUES (%s)", lines)
        cursor.execute(copy.format(file))
        cursor.execute("SELECT pg_reload_conf(), pg_sleep(0.2)")


def connection_error(url: URL) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as refused, connect(unpooled_engine(url)):
        pass
    assert ROLE_PASSWORD not in str(refused.value)
    return refused.value


def test_password_with_special_characters_connects(login: URL) -> None:
    with connect(unpooled_engine(login)) as connection:
        assert connection.exec_driver_sql("SELECT current_user").scalar() == ROLE


@pytest.mark.parametrize("command", [("alembic", "current"), ("syntegra-db", "psql", "-Atc", "SELECT current_user")])
def test_commands_accept_password_with_special_characters(login: URL, command: tuple[str, ...]) -> None:
    whole = login.render_as_string(hide_password=False)
    parts = {
        "POSTGRES_HOST": login.host or str(login.query["host"]),
        "POSTGRES_PORT": str(login.port or login.query.get("port", 5432)),
        "POSTGRES_DB": str(login.database),
        "POSTGRES_USER": ROLE,
        "POSTGRES_PASSWORD": ROLE_PASSWORD,
    }
    for environment in ({"DATABASE_URL": whole}, parts):
        result = run(*command, environment=environment)
        assert result.returncode == 0, result.stderr
        assert ROLE_PASSWORD not in result.stdout + result.stderr


def test_wrong_password_raises_authentication_failed(login: URL) -> None:
    error = connection_error(login.set(password="wrong"))
    assert isinstance(error, AuthenticationFailed)
    assert f"rejected user {ROLE}" in str(error)


def test_unknown_user_raises_authentication_failed(login: URL) -> None:
    error = connection_error(login.set(username="syntegra_unknown", password="x"))
    assert isinstance(error, AuthenticationFailed)


def test_missing_database_raises_database_not_found(login: URL) -> None:
    error = connection_error(login.set(database="syntegra_nowhere"))
    assert isinstance(error, DatabaseNotFound)
    assert f" -O {ROLE} syntegra_nowhere`" in str(error)


def test_missing_connect_privilege_gives_server_reason(login: URL, database: Database, server: Server) -> None:
    name = sql.Identifier(database.name)
    server.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(name))
    error = connection_error(login)
    assert type(error) is ConnectionFailed
    assert "did not open" in str(error)


DATABASE_RIGHTS = "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC", "GRANT CONNECT ON DATABASE postgres TO PUBLIC"


def test_missing_database_without_access_to_maintenance_database_is_named(login: URL, server: Server) -> None:
    revoke, grant = DATABASE_RIGHTS
    server.execute(revoke)
    try:
        error = connection_error(login.set(database="kpi nuevos"))
    finally:
        server.execute(grant)
    assert isinstance(error, DatabaseNotFound)
    assert f" -O {ROLE} 'kpi nuevos'`" in str(error)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"options": "-cwork_mem=lots"}, 'invalid value for parameter "work_mem"'),
        ({"options": "-cno_such_setting=1"}, "no_such_setting"),
        ({"target_session_attrs": "standby"}, "ended by the client: .*(not in hot standby|standby mode)"),
        ({"require_auth": "md5"}, "ended by the client: .*authentication method"),
    ],
)
def test_option_that_cannot_be_met_gives_its_reason(login: URL, options: dict[str, str], words: str) -> None:
    error = connection_error(login.update_query_dict(options))
    assert type(error) is ConnectionFailed
    assert re.search(words, str(error))


@pytest.mark.embedded
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"requirepeer": "mallory"}, 'requirepeer specifies "mallory"'),
        ({"gssencmode": "require"}, "GSSAPI encryption required"),
        ({"sslcertmode": "require"}, "did not request an SSL certificate"),
    ],
)
def test_unmet_demand_on_a_local_socket_gives_its_reason(server: Server, options: dict[str, str], words: str) -> None:
    error = connection_error(server.url.update_query_dict(options))
    assert type(error) is ConnectionFailed
    assert re.search(f"ended by the client: .*{words}", str(error))


def test_undefined_service_is_a_settings_error(server: Server) -> None:
    with (
        pytest.raises(SettingsError, match='is wrong: definition of service "nowhere" not found'),
        connect(unpooled_engine(server.url.update_query_dict({"service": "nowhere"}))),
    ):
        pass


@pytest.mark.parametrize(
    ("version", "interval"),
    [
        ("PostgreSQL 16.1, compiled by Visual C++ build 1937, 64-bit", "0"),
        ("PostgreSQL 18.0 on x86_64-windows, compiled by msvc-19.44.35217, 64-bit", "0"),
        ("PostgreSQL 17.5 (Homebrew) on aarch64-apple-darwin24.4.0, compiled by Apple clang, 64-bit", "0"),
        ("PostgreSQL 18.0 on x86_64-linux, compiled by gcc-14.2.0, 64-bit", "1s"),
    ],
)
def test_closed_connections_are_checked_for_where_the_server_can(
    database: Database, version: str, interval: str
) -> None:
    with database.connect() as connection:
        statement = "CREATE OR REPLACE FUNCTION pg_catalog.version() RETURNS text LANGUAGE sql STABLE AS {}"
        connection.execute(sql.SQL(statement).format(sql.Literal(f"SELECT '{version}'")))
    with connect(database.engine) as connection:
        limit_session(connection)
        assert connection.scalars(text("SHOW client_connection_check_interval")).one() == interval
        assert connection.scalars(text("SHOW idle_session_timeout")).one() == "0"


def test_missing_tls_gives_its_reason(login: URL) -> None:
    with tcp_proxy(login) as proxy:
        proxy.hold(b"SCRAM")
        error = connection_error(proxy.url.update_query_dict({"sslmode": "require"}))
    assert type(error) is ConnectionFailed
    assert "SSL" in str(error)
    assert not proxy.held.is_set(), "the password was used without the demanded TLS"


@pytest.mark.parametrize(
    "options", [{"sslmode": "requiree"}, {"target_session_attrs": "x"}, {"ssl_min_protocol_version": "x"}]
)
def test_invalid_value_of_an_option_is_a_settings_error(login: URL, options: dict[str, str]) -> None:
    with (
        pytest.raises(SettingsError, match=r"is wrong: .*invalid"),
        tcp_proxy(login) as proxy,
        connect(unpooled_engine(proxy.url.update_query_dict(options))),
    ):
        pass


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PGTZ", "Nowhere/Bad"), ("PGDATESTYLE", "nonsense"), ("PGGEQO", "maybe"), ("PGOPTIONS", "-c work_mem=much")],
)
def test_variable_that_the_server_rejects_is_named(
    login: URL, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("PGTZ", "UTC")
        environment.setenv(variable, value)
        error = connection_error(login)
    assert type(error) is ConnectionFailed
    assert re.search(rf"parameter .*Correct the variable {variable}, or remove it \(unset {variable}\)\.$", str(error))


@pytest.mark.parametrize("kind", ["ROLE", "DATABASE"])
def test_connection_limit_is_named(login: URL, server: Server, kind: str) -> None:
    name = sql.Identifier(ROLE if kind == "ROLE" else str(login.database))
    server.execute(
        sql.SQL("ALTER " + ("ROLE" if kind == "ROLE" else "DATABASE") + " {} CONNECTION LIMIT 0").format(name)
    )
    error = connection_error(login)
    assert type(error) is ConnectionFailed
    assert "too many connections" in str(error)
    assert "password" not in str(error)


def test_missing_password_raises_authentication_failed(login: URL) -> None:
    error = connection_error(login._replace(password=None))
    assert isinstance(error, AuthenticationFailed)


def test_connection_lost_in_use_raises_connection_failed(database: Database) -> None:
    with pytest.raises(ConnectionFailed, match="was lost"), connect(database.engine) as connection:
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")


def test_no_listening_server_raises_server_unreachable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    error = connection_error(parse_url(f"postgresql://ana@127.0.0.1:{port}/kpis"))
    assert isinstance(error, ServerUnreachable)
    assert f"127.0.0.1:{port}" in str(error)


@pytest.mark.parametrize("program", [("alembic", "upgrade", "head"), ("syntegra-db", "upgrade")])
def test_connection_error_is_one_line_with_own_exit_status(login: URL, program: tuple[str, ...]) -> None:
    urls = {
        5: login.set(host="127.0.0.1", port=1).set(query={}),
        6: login.set(password="wrong"),
        7: login.set(database="syntegra_nowhere"),
    }
    for status, url in urls.items():
        result = run(*program, url=url.render_as_string(hide_password=False))
        assert (result.returncode, result.stderr.count("\n")) == (status, 1), result.stderr
        assert ROLE_PASSWORD not in result.stderr
