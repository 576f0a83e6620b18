"""How commands end: a message of one line and an exit status for every error, signal and failed output."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

from syntegra_db.cli.output import echo
from syntegra_db.errors import (
    ConnectionFailed,
    OutputFailed,
    SyntegraDBError,
    escape_control_characters,
    server_message,
)
from syntegra_db.interruption import Terminated, describe_interruption, exit_status, termination_signals

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def exit_with_status() -> Iterator[None]:
    """Turn an error of the package, the server or the output, or a signal, into a message and an exit status."""
    try:
        with termination_signals():
            yield
    except SyntegraDBError as error:
        _exit(error.exit_status, f"Error: {error}")
    except KeyboardInterrupt as interruption:
        _exit(exit_status(interruption), describe_interruption(interruption))
    except BrokenPipeError:
        _discard_output()
        sys.exit(exit_status(Terminated(signal.SIGPIPE)))
    except OSError as error:
        _discard_output()
        name = escape_control_characters(str(error.filename or "the output"))
        _exit(OutputFailed.exit_status, f"Error: Cannot read or write {name}: {error.strerror or error}.")
    except Exception as error:
        from sqlalchemy.exc import DBAPIError

        if not isinstance(error, DBAPIError):
            raise
        _exit(ConnectionFailed.exit_status, f"Error: the command failed on the server: {server_message(error)}")


def _exit(status: int, message: str) -> NoReturn:
    # Standard error can be a full device or a terminal that was closed; the status is reported all the same.
    with suppress(OSError):
        echo(message, err=True)
    sys.exit(status)


def _discard_output() -> None:
    """Discard what standard output has not written, which Python would try again at exit."""
    if sys.stdout is not None:  # it was closed when the process started
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
