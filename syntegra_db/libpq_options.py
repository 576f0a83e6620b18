"""The options of libpq that a connection gives so that environment variables do not decide."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from syntegra_db.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection

# libpq ends an attempt that does not meet one of these options; these values demand nothing.
NO_DEMANDS = {
    "channel_binding": "prefer",
    "gssencmode": "disable",
    "max_protocol_version": "3.0",
    "min_protocol_version": "3.0",
    "require_auth": "!sspi",  # empty means that none is allowed; only Windows has SSPI
    "requirepeer": "",
    "sslcertmode": "allow",
    "sslmode": "prefer",
    "sslnegotiation": "postgres",
    "sslrootcert": "",
    "target_session_attrs": "any",
}
# What libpq sends to the server whatever the options are, each with the server's setting.
SESSION_VARIABLES = {"PGDATESTYLE": "DateStyle", "PGGEQO": "geqo", "PGTZ": "TimeZone"}
LEADING_VARIABLES = ("PGSERVICE", "PGHOSTADDR")
# What a connection to the embedded server gives in any case.
GIVEN_OPTIONS = {"application_name", "client_encoding", "connect_timeout", "dbname", "host", "password", "user"}


def options_against_environment(given: Collection[str]) -> dict[str, str]:
    """Return what a URL with the options `given` needs so that libpq's environment variables do not change it.

    It is for the embedded server.

    Raises:
        SettingsError: a variable is set that leads to another server, and that a URL does not always override.
    """
    if leading := [variable for variable in LEADING_VARIABLES if variable in os.environ]:
        raise SettingsError(
            f"{leading[0]} is set and leads to another server than the embedded one. Remove the variable "
            f"(unset {leading[0]}), or set DATABASE_URL."
        )
    return {
        name: NO_DEMANDS.get(name, default)
        for name, (variable, default) in known_options().items()
        if variable in os.environ and name not in {*GIVEN_OPTIONS, *given}
    }


def remove_session_variables() -> None:
    """Remove the variables that no option overrides from the environment of this process, which must be a command's."""
    for variable in SESSION_VARIABLES:
        os.environ.pop(variable, None)


def advise_on_variable(reply: str, given: Collection[str]) -> str:
    """Return which variable to correct, after a blank, if the server's `reply` names its setting; otherwise nothing.

    `given` are the options of the connection.
    """
    settings = {variable: [setting] for variable, setting in SESSION_VARIABLES.items()}
    if "options" not in given:
        settings["PGOPTIONS"] = re.findall(r"([\w.]+)=", os.environ.get("PGOPTIONS", ""))
    for variable, names in settings.items():
        if variable in os.environ and any(name.lower() in reply.lower() for name in names):
            return f" Correct the variable {variable}, or remove it (unset {variable})."
    return ""


def known_options() -> dict[str, tuple[str, str]]:
    """Return libpq's options, each with its environment variable and its default, which may be empty."""
    from psycopg import pq

    return {
        option.keyword.decode(): ((option.envvar or b"").decode(), (option.compiled or b"").decode())
        for option in pq.Conninfo.get_defaults()
    }
