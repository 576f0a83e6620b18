"""What a command says while it works, on standard error."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

PACKAGE = "syntegra_db"
STEPS = "alembic.runtime.migration"


@contextmanager
def progress_on_stderr() -> Iterator[None]:
    """Show the package's log: with the running revision and its clock at a terminal, as lines with a time elsewhere."""
    if sys.stderr.isatty():
        with _at_terminal():
            yield
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    with _attached_handler(PACKAGE, handler):
        yield


@contextmanager
def _at_terminal() -> Iterator[None]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress, log_above_progress(console):
        task = progress.add_task("Looking where the database stands")
        with _attached_handler(STEPS, _StepTitle(lambda title: progress.update(task, description=title))):
            yield


@contextmanager
def log_above_progress(console: Console) -> Iterator[None]:
    """Print the package's log on `console`, above what moves there."""
    from rich.logging import RichHandler

    lines = RichHandler(console=console, show_time=False, show_level=False, show_path=False, highlighter=None)
    with _attached_handler(PACKAGE, lines):
        yield


class _StepTitle(logging.Handler):
    """Passes on which revision Alembic begins with."""

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
