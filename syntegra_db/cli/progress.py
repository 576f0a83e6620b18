"""What a command says while it works, on standard error."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def progress_on_stderr() -> Iterator[None]:
    """Show the package's log: with a running clock at a terminal, as plain lines with the time elsewhere."""
    logger = logging.getLogger("syntegra_db")
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        if sys.stderr.isatty():
            with _at_terminal(logger):
                yield
        else:
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            with _handler(logger, handler):
                yield
    finally:
        logger.setLevel(level)


@contextmanager
def _at_terminal(logger: logging.Logger) -> Iterator[None]:
    from rich.console import Console
    from rich.logging import RichHandler
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    handler = RichHandler(console=console, show_time=False, show_level=False, show_path=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress, _handler(logger, handler):
        progress.add_task("Working on the database")
        yield


@contextmanager
def _handler(logger: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
