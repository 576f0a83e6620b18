"""The log on standard error: messages alone at a terminal, with a time elsewhere, or one JSON object per line.

Only the command line configures logging. Modules of the package log to loggers named `syntegra_db.…`.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from syntegra_db import wording
from syntegra_db.cli.output import echo, to_json
from syntegra_db.errors import escape_control_characters

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE_LOGGER = "syntegra_db"
TEXT = "%(asctime)s %(levelname)s %(message)s"
# Fields of the objects that report how a command ended.
END_FIELDS = ("error", "exit_status")

logger = logging.getLogger(__name__)


class LogFormat(StrEnum):
    """The formats of the log."""

    TEXT = "text"
    JSON = "json"


class StderrHandler(logging.StreamHandler[Any]):
    """Print the package's records, and warnings of other libraries."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.addFilter(is_printed)

    @property
    def is_json(self) -> bool:
        """Whether it prints JSON."""
        return isinstance(self.formatter, JsonFormatter)


class EscapingFormatter(logging.Formatter):
    """Formatter that escapes control characters, which names of the server can have; its times are RFC 3339."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802  inherited
        """Return the time of `record`."""
        return _time_of(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  inherited
        """Return the line of `record`, without a traceback."""
        # A file's name can have line breaks; those between the lines of a traceback remain.
        return escape_control_characters(super().formatMessage(record), keep="\t")

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of `record`."""
        return escape_control_characters(super().format(record), keep="\n\t")


class JsonFormatter(logging.Formatter):
    """Formatter of one JSON object per record: time, level, logger and message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object of `record`."""
        fields = {
            "time": _time_of(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        return to_json(fields | {name: vars(record)[name] for name in END_FIELDS if name in vars(record)}, sys.stderr)


def is_printed(record: logging.LogRecord) -> bool:
    """Return whether a record is of the package, or a warning."""
    return record.name.partition(".")[0] == PACKAGE_LOGGER or record.levelno >= logging.WARNING


@contextmanager
def log_to_stderr(log_format: LogFormat = LogFormat.TEXT, level: int = logging.INFO) -> Iterator[None]:
    """Print the log of the package from `level` on during the block."""
    if log_format == LogFormat.JSON:
        formatter: logging.Formatter = JsonFormatter()
    else:
        formatter = EscapingFormatter(None if is_terminal() else TEXT)
    package = logging.getLogger(PACKAGE_LOGGER)
    before = package.level
    package.setLevel(level)
    try:
        with attached_handler(logging.getLogger(), StderrHandler(formatter)):
            yield
    finally:
        package.setLevel(before)


@contextmanager
def attached_handler(target: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    """Attach `handler` to the logger `target` during the block."""
    target.addHandler(handler)
    try:
        yield
    finally:
        target.removeHandler(handler)


@contextmanager
def replaced_handler(handler: logging.Handler) -> Iterator[None]:
    """Let `handler` print what `log_to_stderr` would print, during the block."""
    root, current = logging.getLogger(), stderr_handler()
    handler.addFilter(is_printed)
    if current is not None:
        root.removeHandler(current)
    try:
        with attached_handler(root, handler):
            yield
    finally:
        if current is not None:
            root.addHandler(current)


def stderr_handler() -> StderrHandler | None:
    """Return the handler that `log_to_stderr` attached, if any."""
    return next((handler for handler in logging.getLogger().handlers if isinstance(handler, StderrHandler)), None)


def shows_progress() -> bool:
    """Return whether a bar may be shown: at a terminal, without `--quiet`, and not between JSON objects."""
    handler = stderr_handler()
    is_plain = handler is not None and not handler.is_json
    return is_plain and is_terminal() and logging.getLogger(PACKAGE_LOGGER).isEnabledFor(logging.INFO)


def is_terminal() -> bool:
    """Return whether standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def report(message: str, *, prefix: str = "", level: int = logging.ERROR, **end: object) -> None:
    """Print a message that `--quiet` does not hide: a line with `prefix`, or an object of the JSON log.

    `end` are the `END_FIELDS` of the object.
    """
    handler = stderr_handler()
    if handler is None or not handler.is_json:
        echo(prefix + message, err=True)
        return
    handler.handle(logger.makeRecord(logger.name, level, "", 0, "%s", (message,), None, extra=end))


def _time_of(record: logging.LogRecord) -> str:
    return wording.timestamp(datetime.fromtimestamp(record.created, UTC), "milliseconds")
