"""The progress of a command: a bar at a terminal, below the log."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from syntegra_db.cli.logs import EscapingFormatter, attached_handler, replaced_handler, shows_progress
from syntegra_db.errors import escape_control_characters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ALEMBIC_LOGGER = "alembic.runtime.migration"


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[str, int, int | None], None] | None]:
    """Show a bar at a terminal, with the log above it.

    Yields a function that updates the bar's description, completed amount and total (None: unknown), or None if
    there is no bar.
    """
    if not shows_progress():
        yield None
        return
    from rich.console import Console
    from rich.logging import RichHandler
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    lines = RichHandler(console=console, show_time=False, show_level=False, show_path=False, highlighter=None)
    lines.setFormatter(EscapingFormatter())
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar, replaced_handler(lines):
        task = bar.add_task(title, total=None)

        def show(description: str, completed: int, total: int | None) -> None:
            # `update` cannot set the total back to unknown, or continue the clock of a task that was completed.
            bar.tasks[0].total = total
            bar.update(task, description=escape_control_characters(description), completed=completed)
            bar.tasks[0].finished_time = None

        yield show


@contextmanager
def migration_progress() -> Iterator[None]:
    """Show at a terminal the revision that Alembic runs, with its elapsed time."""
    with progress_bar("Reading the database's state") as show:
        if show is None:
            yield
            return
        alembic = logging.getLogger(ALEMBIC_LOGGER)
        before = alembic.level
        alembic.setLevel(logging.INFO)
        try:
            with attached_handler(alembic, _StepTitle(lambda title: show(title, 0, None))):
                yield
        finally:
            alembic.setLevel(before)


class _StepTitle(logging.Handler):
    """Log handler that passes Alembic's `Running …` messages to `show`."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith("Running"):
            self._show(message)
