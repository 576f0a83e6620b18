"""The options of the plugin: the command line, then the environment, then pytest's configuration file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest

EMBEDDED, DOCKER = "embedded", "docker"
DATABASE, ROLLBACK = "database", "rollback"
ISOLATIONS = (DATABASE, ROLLBACK)
OPTION = "--syntegra-server"
ENVIRONMENT_VARIABLE = "SYNTEGRA_SERVER"
MARKER = "syntegra_isolation"
PLACES = "also the environment variable {} and the ini option {}"


def add_options(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("syntegra_db", "databases of syntegra_db")
    _add(
        group,
        parser,
        "server",
        "embedded|docker|URL",
        "the server that the tests run on: an embedded PostgreSQL in a temporary directory (default), a container of "
        "the pgvector image, or the one of an administrator's URL. A URL with a password belongs in the variable, "
        "because all users of the machine can read a command line",
    )
    _add(group, parser, "postgres", "VERSION", "version of the embedded PostgreSQL; default: the newest one")
    _add(
        group,
        parser,
        "isolation",
        "|".join(ISOLATIONS),
        "what a test may change: a database that no other test uses (default), or one transaction of a shared database "
        f"that is rolled back, which is faster; the marker {MARKER} chooses for a test",
    )


def _add(group: pytest.OptionGroup, parser: pytest.Parser, name: str, metavar: str, text: str) -> None:
    option, variable = f"syntegra_{name}", f"SYNTEGRA_{name.upper()}"
    places = PLACES.format(variable, option)
    group.addoption(f"--syntegra-{name}", metavar=metavar, help=f"{text}; {places}")
    parser.addini(option, f"same as --syntegra-{name}", default="")


@dataclass(frozen=True)
class Options:
    """The choices of a run of tests; `server` is `embedded`, `docker` or a URL, which may have a password."""

    server: str = field(repr=False)
    postgres: int | None
    isolation: str


OPTIONS = pytest.StashKey[Options]()


def read_options(config: pytest.Config) -> Options:
    """Return the choices of the command line, else of the environment, else of the configuration file.

    Raises:
        pytest.UsageError: one of them is not valid.
    """
    server, version = _value(config, "server") or EMBEDDED, _value(config, "postgres")
    if server not in {EMBEDDED, DOCKER} and "://" not in server:
        # Not shown: it may be a part of a URL.
        raise pytest.UsageError(
            f"{OPTION} is none of embedded, docker and a URL such as postgresql://administrator@localhost/postgres.",
        )
    if version and not version.isdecimal():
        raise pytest.UsageError(f"--syntegra-postgres is {version!r}, not a version such as 18.")
    isolation = _require_isolation(_value(config, "isolation") or DATABASE, "--syntegra-isolation is")
    return Options(server, int(version) if version else None, isolation)


def isolation_of(node: pytest.Item) -> str:
    """Return the isolation of a test: that of its marker, or else of the run."""
    marker = node.get_closest_marker(MARKER)
    if marker is None:
        return node.config.stash[OPTIONS].isolation
    value = marker.args[0] if marker.args else None
    return _require_isolation(value, f"The marker {MARKER} of {node.nodeid} has")


def _require_isolation(value: object, subject: str) -> str:
    if value not in ISOLATIONS:
        raise pytest.UsageError(f"{subject} {value!r}; it takes database or rollback.")
    return str(value)


def _value(config: pytest.Config, name: str) -> str:
    chosen = config.getoption(f"--syntegra-{name}")
    return str(chosen or os.environ.get(f"SYNTEGRA_{name.upper()}") or config.getini(f"syntegra_{name}"))
