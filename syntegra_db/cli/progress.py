"""The progress of a command on standard error: a bar at a terminal, log lines with a time elsewhere."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from syntegra_db.errors import escape_control_characters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGE_LOGGER = "syntegra_db"
ALEMBIC_LOGGER = "alembic.runtime.migration"


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[str, int, int | None], None] | None]:
    """Show the package's log, and at a terminal a bar below it.

    Yields a function that updates the bar's description, completed amount and total (None: unknown), or None if
    standard error is not a terminal.
    """
    if not sys.stderr.isatty():
        handler = logging.StreamHandler()
        handler.setFormatter(_EscapingFormatter("%(asctime)s %(levelname)s %(message)s"))
        with _attached_handler(PACKAGE_LOGGER, handler):
            yield None
        return
    from rich.console import Console
    from rich.logging import RichHandler
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    lines = RichHandler(console=console, show_time=False, show_level=False, show_path=False, highlighter=None)
    lines.setFormatter(_EscapingFormatter())
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar, _attached_handler(PACKAGE_LOGGER, lines):
        task = bar.add_task(title, total=None)

        def show(description: str, completed: int, total: int | None) -> None:
            # `update` cannot set the total back to unknown, or continue the clock of a task that was completed.
            bar.tasks[0].total = total
            bar.update(task, description=escape_control_characters(description), completed=completed)
            bar.tasks[0].finished_time = None

        yield show


@contextmanager
def migration_progress() -> Iterator[None]:
    """Show the package's log, and at a terminal the revision that Alembic runs with its elapsed time."""
    with progress_bar("Reading the database's state") as show:
        if show is None:
            yield
        else:
            with _attached_handler(ALEMBIC_LOGGER, _StepTitle(lambda title: show(title, 0, None))):
                yield


class _EscapingFormatter(logging.Formatter):
    """Formatter that escapes control characters, which names of the server can have."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  inherited
        # A file's name can have line breaks; those between the lines of a traceback remain.
        return escape_control_characters(super().formatMessage(record), keep="\t")

    def format(self, record: logging.LogRecord) -> str:
        return escape_control_characters(super().format(record), keep="\n\t")


class _StepTitle(logging.Handler):
    """Log handler that passes Alembic's `Running …` messages to `show`."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith("Running"):
            self._show(message)


@contextmanager
def _attached_handler(name: str, handler: logging.Handler) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
