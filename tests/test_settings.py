from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import URL

from support.commands import run
from syntegra_db.connections import conninfo
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
