from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import URL

from support.commands import run
from syntegra_db.connections import connect_args, conninfo, unpooled_engine
from syntegra_db.errors import SettingsError
from syntegra_db.settings import database_url, describe_database, is_configured, parse_url

PASSWORDS = ["p%ss", "p@ss", "p:ss", "p ss", "p%40ss", "p/ss?x=#y", "contraseña", 'a\\b"c']


def test_defaults() -> None:
    url = database_url()
    assert url == URL.create(
        "postgresql+psycopg", username="syntegra_user", host="localhost", port=5432, database="syntegra_db"
    )
    assert not is_configured()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_url_scheme_variants_use_psycopg_3(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://ana@db.internal:6543/kpis?sslmode=require")
    url = database_url()
    assert (url.drivername, url.host, url.port, url.database) == ("postgresql+psycopg", "db.internal", 6543, "kpis")
    assert url.query["sslmode"] == "require"


def test_database_url_takes_precedence_over_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "elsewhere")
    monkeypatch.setenv("DATABASE_URL", "postgresql://here/kpis")
    assert database_url().host == "here"


def test_environment_takes_precedence_over_dotenv(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("POSTGRES_HOST=file\nPOSTGRES_DB=file\n", encoding="utf-8")
    monkeypatch.setenv("POSTGRES_HOST", "environment")
    assert (database_url().host, database_url().database) == ("environment", "file")
    assert is_configured()


def test_empty_variable_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    assert not is_configured()


def test_embedded_server_takes_precedence_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Path(".postgres/18").resolve()
    data.mkdir(parents=True)
    Path(".postgres/url").write_text(f"postgresql://syntegra_user@/syntegra_db?host={data}\n", encoding="utf-8")
    assert database_url().query["host"] == str(data)
    monkeypatch.setenv("POSTGRES_HOST", "elsewhere")
    assert database_url().host == "elsewhere"


@pytest.mark.parametrize("password", PASSWORDS)
def test_password_is_kept_and_hidden(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", password)
    from_parts = database_url()
    monkeypatch.setenv("DATABASE_URL", f"postgresql://ana:{quote(password, safe='')}@h/d")
    for url in (from_parts, database_url()):
        assert url.password == password
        assert password not in repr(url) + describe_database(url)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("s3cret", "is not a URL"),
        ("mysql://u:s3cret@h/d", "names 'mysql'"),
        ("postgresql+asyncpg://u:s3cret@h/d", "names 'postgresql\\+asyncpg'"),
        ("postgresql://u:s3cret@x@h/d", "more than one '@'"),
        ("postgresql://u:s3cret@h:port/d", "is not a URL"),
    ],
)
def test_invalid_url_error_does_not_show_it(value: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint) as refused:
        parse_url(value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("command", [("alembic", "current"), ("syntegra-db", "upgrade")])
def test_invalid_variable_is_one_line_and_exits_3(command: tuple[str, ...]) -> None:
    result = run(*command, environment={"POSTGRES_PORT": "fivefour"})
    assert (result.returncode, result.stderr.count("\n")) == (3, 1)
    assert "POSTGRES_PORT" in result.stderr
    assert "fivefour" not in result.stderr


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "soon", "2147484"])
def test_timeout_out_of_range_exits_3(value: str) -> None:
    result = run("syntegra-db", "upgrade", environment={"SYNTEGRA_LOCK_TIMEOUT": value})
    assert (result.returncode, result.stderr.count("\n")) == (3, 1), result.stderr
    assert "SYNTEGRA_LOCK_TIMEOUT" in result.stderr


def test_dotenv_not_readable_exits_3(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("POSTGRES_PASSWORD=contraseña".encode("latin-1"))
    for command, status in (("upgrade", 3), ("status", 3), ("verify", 2)):
        result = run("syntegra-db", command, cwd=tmp_path)
        assert (result.returncode, result.stderr.count("\n")) == (status, 1), result.stderr
        assert "it is not UTF-8" in result.stderr


def test_credentials_in_query_become_url_fields() -> None:
    url = parse_url("postgresql:///?host=/run/here&user=ana&password=s3cret&dbname=kpis")
    assert (url.username, url.password, url.database) == ("ana", "s3cret", "kpis")
    assert "s3cret" not in repr(url)
    parameters = conninfo_to_dict(conninfo(url))
    assert {"host": "/run/here", "user": "ana", "password": "s3cret", "dbname": "kpis"}.items() <= parameters.items()


def test_several_hosts_are_passed_to_libpq() -> None:
    assert "host=one,two" in conninfo(parse_url("postgresql:///kpis?host=one&host=two"))


@pytest.mark.parametrize(
    ("url", "hosts", "ports", "described"),
    [
        ("postgresql:///kpis?host=one:1&host=two:2", "one,two", "1,2", "kpis on one:1, two:2"),
        ("postgresql:///kpis?host=one:1", "one", "1", "kpis on one:1"),
        ("postgresql:///kpis?host=one,two&port=5432", "one,two", "5432,5432", "kpis on one:5432, two:5432"),
        ("postgresql://u:p%2Cw@one:1,two:2/kpis", "one,two", "1,2", "kpis on one:1, two:2"),
        ("postgresql://u:p%40w@one,two:2/kpis?sslmode=prefer", "one,two", ",2", "kpis on one, two:2"),
        ("postgresql://one,[::1]:2/kpis", "one,::1", ",2", "kpis on one, ::1:2"),
        ("postgresql://u@%2Frun%2Fpg/kpis", "/run/pg", None, "kpis on /run/pg"),
        ("postgresql://u@%2Frun%2Fpg:6432/kpis", "/run/pg", "6432", "kpis on /run/pg:6432"),
        ("postgresql://there/kpis?host=here&port=7", "here", "7", "kpis on here:7"),
        ("postgresql:///?service=prod", None, None, "database of service prod"),
        ("postgresql:///kpis?service=prod", None, None, "database kpis of service prod"),
        ("postgresql://ana@/", None, None, "database ana on the local socket"),
    ],
)
def test_libpq_gets_the_same_as_sqlalchemy_passes(
    url: str, hosts: str | None, ports: str | None, described: str
) -> None:
    parsed = parse_url(url)
    parameters = conninfo_to_dict(conninfo(parsed))
    assert (parameters.get("host"), parameters.get("port")) == (hosts, ports)
    passed = unpooled_engine(parsed).dialect.create_connect_args(parsed)[1]
    assert {name: str(passed[name]) for name in ("host", "port", "dbname", "user") if name in passed} == {
        name: parameters[name] for name in ("host", "port", "dbname", "user") if name in parameters
    }
    assert describe_database(parsed).endswith(described)


@pytest.mark.parametrize("url", ["postgresql://a:x,b:2/d", "postgresql://u:s3cret@a,b:port/d"])
def test_invalid_host_list_is_rejected_without_showing_it(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_url(url)
    assert "s3cret" not in str(refused.value)


def test_names_that_the_url_leaves_out_come_from_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATABASE", "kpis")
    monkeypatch.setenv("PGHOST", "db.internal")
    assert describe_database(parse_url("postgresql://")) == "database kpis on db.internal"


@pytest.mark.parametrize(("value", "threshold"), [("0", None), ("5", 5)])
def test_prepare_threshold_is_for_psycopg(value: str, threshold: int | None) -> None:
    url = parse_url(f"postgresql://h/d?prepare_threshold={value}")
    assert connect_args(url, "x")["prepare_threshold"] == threshold
    assert "prepare" not in conninfo(url)


@pytest.mark.parametrize(
    "query",
    [
        "prepare_threshold=x",
        "keepalives=x",
        "prepare_threshold=-1",
        "schema=public",
        "autocommit=true",
    ],
)
def test_option_unknown_to_libpq_is_one_sentence(query: str) -> None:
    result = run("syntegra-db", "status", url=f"postgresql://u:s3cret@h/d?{query}")
    assert (result.returncode, result.stderr.count("\n")) == (3, 1), result.stderr
    assert "s3cret" not in result.stderr


@pytest.mark.parametrize("value", ["tcp://10.0.0.1:5432", '"5432"', "0", "x"])
def test_invalid_port_matters_only_if_it_is_used(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_PORT", value)
    with pytest.raises(SettingsError, match="POSTGRES_PORT is not a number") as refused:
        database_url()
    assert ("Kubernetes" in str(refused.value)) == ("://" in value)
    monkeypatch.setenv("DATABASE_URL", "postgresql://here/kpis")
    assert database_url().host == "here"
