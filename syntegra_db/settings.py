"""Where the database is: one URL from the environment and `.env`.

The order is: `DATABASE_URL`, the `POSTGRES_*` variables, the embedded server that was started in this directory (see
`syntegra_db.embedded`), the defaults of the `POSTGRES_*` variables.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

from psycopg import pq
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.util import immutabledict

from syntegra_db.errors import SettingsError, escape_control_characters
from syntegra_db.libpq_options import options_against_environment

DRIVER = "postgresql+psycopg"
URL_SCHEMES = frozenset({"postgres", "postgresql", DRIVER})
LOCAL_URL_FILE = Path(".postgres") / "url"
# The user and password end at the only "@", which is before the first "/", "?" or "#".
# SQLAlchemy reads neither several hosts nor an encoded one before the path, as libpq does.
AUTHORITY = re.compile(
    r"(?P<start>[^/?#]*://(?:[^/?#@]*@)?)(?P<hosts>[^/?#@]*[,%][^/?#@]*)(?P<end>(?:[/?#].*)?)", re.DOTALL
)
HOST_AND_PORT = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^:]*))(?::(?P<port>\d*))?")
AT_IN_AUTHORITY_ONLY = re.compile(r"[^@]*|[^/?#@]*://[^/?#@]*@[^@]*")
PORTS = range(1, 65536)
# libpq marks secrets with "*", but not these keys, and its older versions do not know all of them.
UNMARKED_SECRETS = frozenset({"scram_client_key", "scram_server_key", "oauth_client_secret"})
DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
LIST_OPTIONS = frozenset({"host", "port"})
# psycopg's own option.
PREPARE_THRESHOLD = "prepare_threshold"
KEEPALIVES = {"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"}
INTEGER_OPTIONS = {PREPARE_THRESHOLD, "connect_timeout", "tcp_user_timeout", *KEEPALIVES}
INTEGER = re.compile(r"[0-9]{1,9}")


class DatabaseSettings(BaseSettings):
    """The variables that name the database, read from the environment, then from `.env`."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    database_url: SecretStr | None = None
    postgres_host: str = "localhost"
    # Validated only if it is used: Kubernetes sets it to a URL for a Service named postgres.
    postgres_port: str = "5432"
    postgres_db: str = "syntegra_db"
    postgres_user: str = "syntegra_user"
    postgres_password: SecretStr | None = None

    def url(self) -> URL:
        """Return the URL of the database, always for psycopg 3.

        Raises:
            SettingsError: `DATABASE_URL` is not a PostgreSQL URL, `.postgres/url` cannot be used, or
                `POSTGRES_PORT` is not a port.
        """
        if self.database_url is not None:
            return parse_url(self.database_url.get_secret_value())
        if not self.model_fields_set and (local := local_url()) is not None:
            return local
        if not _is_port(self.postgres_port):
            cause = " Kubernetes sets it for a Service named postgres." if "://" in self.postgres_port else ""
            raise SettingsError(
                f"POSTGRES_PORT is not a number from {PORTS[0]} to {PORTS[-1]}.{cause} Correct it in the environment "
                "or in .env, or set DATABASE_URL."
            )
        password = self.postgres_password
        return URL.create(
            DRIVER,
            username=self.postgres_user,
            password=password.get_secret_value() if password else None,
            host=self.postgres_host,
            port=int(self.postgres_port),
            database=self.postgres_db,
        )


def database_url() -> URL:
    """Return the URL of the database that the environment and `.env` name.

    Raises:
        SettingsError: a variable is invalid; the message names it and never shows its value.
    """
    return _load().url()


def is_configured() -> bool:
    """Return whether the environment or `.env` names a database."""
    return bool(_load().model_fields_set)


def local_url() -> URL | None:
    """Return the URL of the embedded server that was started in this directory, or None.

    Raises:
        SettingsError: the file cannot be read, or was copied or moved here: then its URL leads to another database.
    """
    try:
        url = make_url(LOCAL_URL_FILE.read_text(encoding="utf-8").strip())
        sockets = Path(str(url.query["host"]))
        is_local = any(
            sockets.name == socket_directory_name(data) or (sockets.exists() and sockets.samefile(data))
            for data in LOCAL_URL_FILE.parent.iterdir()
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsError(
            f"The embedded server's address in {LOCAL_URL_FILE} cannot be read: {error.strerror}. Run the command as "
            "the user who started the server, or set DATABASE_URL."
        ) from None
    except (ArgumentError, KeyError, ValueError):
        is_local = False
    if not is_local:
        raise SettingsError(
            f"{LOCAL_URL_FILE} does not lead to the server of this folder, because it was copied, moved or changed. "
            "Correct it: syntegra-db local start"
        )
    return against_environment(parse_url(url))


def against_environment(url: URL) -> URL:
    """Return the URL of an embedded server, with the options of `options_against_environment`."""
    return url.update_query_dict(options_against_environment(url.query))


def socket_directory_name(data: Path) -> str:
    """Return the name of the folder with the socket of an embedded server whose data folder cannot have it."""
    found = data.stat()
    return f"syntegra-db-{found.st_dev:x}-{found.st_ino:x}"


def parse_url(text: str | URL) -> URL:
    """Return `text` as a URL for psycopg 3; `postgres://` and `postgresql://` are equivalent.

    Raises:
        SettingsError: `text` is not a URL, a URL of another database or driver, or has an option that libpq does not
            know or that is secret. No part of it that can come from a password is shown.
    """
    if isinstance(text, str) and not AT_IN_AUTHORITY_ONLY.fullmatch(text.strip()):
        raise SettingsError(
            "DATABASE_URL has more than one '@', or one after a '/', '?' or '#'. In the user, the password and the "
            "options, write @ as %40, / as %2F, ? as %3F and # as %23."
        )
    try:
        url = _make_url(text.strip()) if isinstance(text, str) else text
    except (ArgumentError, ValueError):
        raise SettingsError("DATABASE_URL is not a URL; write postgresql://user:password@host:5432/database.") from None
    if url.drivername not in URL_SCHEMES:
        raise SettingsError(
            f"DATABASE_URL names {url.drivername!r}; syntegra_db uses PostgreSQL through psycopg 3: "
            "write postgresql://…"
        )
    if url.host and "@" in url.host:
        raise SettingsError("DATABASE_URL has more than one '@'; write the ones in the password as %40.")
    _validate_options(url)
    url = _repeat_port(url)
    _validate_ports(url)
    return _hoist_query_credentials(url.set(drivername=DRIVER))


def libpq_parameters(url: URL) -> dict[str, str]:
    """Return what libpq gets for `url`, by name: the same as SQLAlchemy passes to psycopg."""
    _, parameters = DIALECT.create_connect_args(url)  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    return {name: str(value) for name, value in parameters.items() if name != PREPARE_THRESHOLD}


def _make_url(text: str) -> URL:
    authority = AUTHORITY.fullmatch(text)
    if authority is None:
        return make_url(text)
    specs = [HOST_AND_PORT.fullmatch(spec) for spec in authority["hosts"].split(",")]
    if not all(specs):
        raise ArgumentError
    hosts = ",".join(unquote(spec["address"] or spec["name"] or "") for spec in specs if spec)
    ports = ",".join(spec["port"] or "" for spec in specs if spec)
    listed = {"host": hosts, "port": ports} if ports.strip(",") else {"host": hosts}
    url = make_url(authority["start"] + authority["end"])
    return url.set(query={**listed, **url.query})


def _repeat_port(url: URL) -> URL:
    """Return the URL with one port for each host, which SQLAlchemy requires, if it has one port for all."""
    hosts, ports = url.query.get("host"), url.query.get("port")
    if isinstance(hosts, str) and isinstance(ports, str) and "," in hosts and "," not in ports:
        return url.update_query_dict({"port": ",".join([ports] * len(hosts.split(",")))})
    return url


def _validate_options(url: URL) -> None:
    """Raise `SettingsError` if libpq does not know an option of the query, or if other programs would show it."""
    options = {option.keyword.decode(): option.dispchar for option in pq.Conninfo.get_defaults()}
    if wrong := [name for name in INTEGER_OPTIONS & url.query.keys() if not INTEGER.fullmatch(str(url.query[name]))]:
        raise SettingsError(f"The option {wrong[0]} in DATABASE_URL is not a number from 0 to 999999999.")
    secrets = UNMARKED_SECRETS | {name for name, mark in options.items() if mark == b"*"} - {"password"}
    if found := sorted(secrets & url.query.keys()):
        raise SettingsError(
            f"DATABASE_URL has the secret option {found[0]}, which other programs would show. Put it into libpq's "
            "connection service file, and write service=NAME in the URL."
        )
    # The name is not shown: after an unescaped '&', it is a part of the password.
    if url.query.keys() - options.keys() - {PREPARE_THRESHOLD}:
        raise SettingsError(
            "DATABASE_URL has an option that libpq does not know. Correct its name; in a password, write & as %26."
        )
    if any(not isinstance(value, str) for name, value in url.query.items() if name not in LIST_OPTIONS):
        raise SettingsError("DATABASE_URL has the same option twice; keep one of them.")
    if "\0" in unquote(url.render_as_string(hide_password=False)):
        raise SettingsError("DATABASE_URL has a NUL character (%00), which PostgreSQL does not accept.")


def _validate_ports(url: URL) -> None:
    ports = url.query.get("port", ())
    listed = (ports if isinstance(ports, str) else ",".join(ports)).split(",") if ports else []
    if url.port is not None:
        listed.append(str(url.port))
    if any(port and not _is_port(port) for port in listed):
        raise SettingsError(f"DATABASE_URL has a port that is not a number from {PORTS[0]} to {PORTS[-1]}.")
    try:
        libpq_parameters(url)
    except ArgumentError:
        raise SettingsError(
            "DATABASE_URL has several hosts and a different number of ports; write one port for each host: "
            "?host=one,two&port=5432,5432"
        ) from None


def _is_port(text: str) -> bool:
    return text.isdecimal() and int(text) in PORTS


def _hoist_query_credentials(url: URL) -> URL:
    """Return the URL with user, password and database moved from the query, where libpq also accepts them."""
    query: dict[str, Any] = dict(url.query)
    return url._replace(
        username=query.pop("user", url.username),
        password=query.pop("password", url.password),
        database=query.pop("dbname", url.database),
        query=immutabledict(query),
    )


def describe_database(url: URL) -> str:
    """Return the database and its host without the password, such as `database syntegra_db on localhost:5432`.

    It is one line: control characters are escaped.
    """
    return escape_control_characters(_describe_database(url))


def _describe_database(url: URL) -> str:
    given = libpq_parameters(url)
    # libpq reads them from its own environment variables.
    defaults = {option.keyword.decode(): (option.val or b"").decode() for option in pq.Conninfo.get_defaults()}
    service, name, hosts = given.get("service"), given.get("dbname"), given.get("host") or given.get("hostaddr")
    if service and not (name and hosts):
        return f"database {name} of service {service}" if name else f"database of service {service}"
    name = name or defaults["dbname"] or given.get("user") or defaults["user"]
    hosts = hosts or defaults["host"] or defaults["hostaddr"] or "the local socket"
    ports = given.get("port", "").split(",")
    places = (f"{host}:{port}" if port else host for host, port in zip_longest(hosts.split(","), ports, fillvalue=""))
    return f"database {name} on {', '.join(places)}"


def describe_validation_error(error: ValidationError, prefix: str = "") -> str:
    """Return the invalid variables and the reasons, without their values."""
    problems = "; ".join(
        f"{prefix}{str(problem['loc'][0]).upper()}: {problem['msg']}" for problem in error.errors(include_input=False)
    )
    return f"{problems}. Correct it in the environment or in .env."


def describe_dotenv_error(error: OSError | UnicodeError) -> str:
    """Return why `.env` cannot be read, without its contents."""
    reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
    return f"The file .env in the current directory cannot be read: {reason}. Correct it, or change the directory."


def _load() -> DatabaseSettings:
    try:
        return DatabaseSettings()
    except ValidationError as error:
        raise SettingsError(describe_validation_error(error)) from None
    except (OSError, UnicodeError) as error:
        raise SettingsError(describe_dotenv_error(error)) from None
