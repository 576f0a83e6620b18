"""The options of libpq that a connection gives so that environment variables do not decide."""

from __future__ import annotations

import os

from psycopg import pq

from syntegra_db.errors import SettingsError

# libpq ends an attempt that does not meet one of these options; these values demand nothing.
NO_DEMANDS = {
    "channel_binding": "prefer",
    "gssencmode": "disable",
    "max_protocol_version": "3.0",
    "min_protocol_version": "3.0",
    "require_auth": "",
    "requirepeer": "",
    "sslcertmode": "allow",
    "sslmode": "prefer",
    "sslnegotiation": "postgres",
    "sslrootcert": "",
    "target_session_attrs": "any",
}
# What a connection to the embedded server gives in any case.
GIVEN_OPTIONS = {"application_name", "client_encoding", "connect_timeout", "dbname", "host", "password", "user"}


def options_against_environment() -> dict[str, str]:
    """Return what a URL needs so that libpq's environment variables change nothing, for the embedded server.

    Raises:
        SettingsError: PGSERVICE is set, which no option overrides.
    """
    if "PGSERVICE" in os.environ:
        raise SettingsError(
            "PGSERVICE is set, and its service would change the connection to the embedded server. Remove the "
            "variable: unset PGSERVICE"
        )
    return {
        name: NO_DEMANDS.get(name, default)
        for name, (variable, default) in known_options().items()
        if variable in os.environ and name not in GIVEN_OPTIONS
    }


def known_options() -> dict[str, tuple[str, str]]:
    """Return libpq's options, each with its environment variable and its default, which may be empty."""
    return {
        option.keyword.decode(): ((option.envvar or b"").decode(), (option.compiled or b"").decode())
        for option in pq.Conninfo.get_defaults()
    }
