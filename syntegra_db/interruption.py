"""SIGTERM and SIGHUP end a command as Ctrl-C does: clean up, report the state, exit with 128 plus the number."""

from __future__ import annotations

import logging
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
# A signal to a process group arrives a second time from the parent, such as make; the cleanup takes less than this.
REPEAT_SECONDS = 10.0


class Terminated(KeyboardInterrupt):
    """A signal ended the command.

    Attributes:
        signal: its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


def exit_status(interruption: KeyboardInterrupt) -> int:
    """Return 128 plus the number of the signal: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + (interruption.signal if isinstance(interruption, Terminated) else signal.SIGINT)


def describe_interruption(interruption: KeyboardInterrupt) -> str:
    """Return the message for an interruption, with the states that `report_if_interrupted` added."""
    cause = f"Terminated by {interruption}." if isinstance(interruption, Terminated) else "Interrupted."
    return " ".join([cause, *getattr(interruption, "__notes__", ())])


@contextmanager
def report_if_interrupted(describe_state: Callable[[], str], *, unless_reported: bool = False) -> Iterator[None]:
    """Add the sentence of `describe_state`, which says what was changed, to an interruption of the block.

    With `unless_reported`, only if no block inside has added one.
    """
    try:
        yield
    except KeyboardInterrupt as interruption:
        if not (unless_reported and hasattr(interruption, "__notes__")):
            interruption.add_note(describe_state())
        raise


@contextmanager
def termination_signals() -> Iterator[None]:
    """Raise `Terminated` in the main thread when SIGTERM or SIGHUP arrives during the block.

    A signal that the process was started to ignore, as under nohup, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    latest = -REPEAT_SECONDS

    def interrupt(number: int, _frame: FrameType | None) -> None:
        nonlocal latest
        now = time.monotonic()
        if now - latest >= REPEAT_SECONDS:
            latest = now
            raise Terminated(number)

    # After an interruption, psycopg cancels the statement and logs how that ended.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    # None is a handler of a program in C that embeds Python, which could not be set again.
    previous_handlers = {
        number: handler for number in SIGNALS if (handler := signal.getsignal(number)) not in {signal.SIG_IGN, None}
    }
    for number in previous_handlers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
