"""How commands end: a message of one line and an exit status for every error, signal and failed output."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

from syntegra_db.cli.logs import report
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
        _exit(error.exit_status, str(error), type(error).__name__)
    except KeyboardInterrupt as interruption:
        _exit(exit_status(interruption), describe_interruption(interruption), prefix="")
    except BrokenPipeError:
        _discard_output()
        sys.exit(exit_status(Terminated(signal.SIGPIPE)))
    except OSError as error:
        _discard_output()
        name = escape_control_characters(str(error.filename or "the output"))
        message = f"Cannot read or write {name}: {error.strerror or error}."
        _exit(OutputFailed.exit_status, message, OutputFailed.__name__)
    except Exception as error:
        # Importing SQLAlchemy would delay `--help`, which is an exception too.
        exceptions = sys.modules.get("sqlalchemy.exc")
        if exceptions is None or not isinstance(error, exceptions.DBAPIError):
            raise
        message = f"the command failed on the server: {server_message(error)}"
        _exit(ConnectionFailed.exit_status, message, ConnectionFailed.__name__)


def _exit(status: int, message: str, error: str | None = None, *, prefix: str = "Error: ") -> NoReturn:
    # Standard error can be a full device or a terminal that was closed; the status is reported all the same.
    with suppress(OSError):
        report(message, prefix=prefix, error=error, exit_status=status)
    sys.exit(status)


def _discard_output() -> None:
    """Discard what standard output has not written, which Python would try again at exit."""
    if sys.stdout is not None:  # it was closed when the process started
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
