"""Questions before a command deletes or separates rows."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from syntegra_db.cli.logs import report
from syntegra_db.cli.output import echo
from syntegra_db.interruption import report_if_interrupted

if TYPE_CHECKING:
    from syntegra_db.errors import SyntegraDBError


def confirm_no_backup(data_loss: str, error: type[SyntegraDBError], *, yes: bool) -> None:
    """Print what is lost without a backup, and raise `error` unless the user confirms it or `yes` is set."""
    confirm(
        data_loss,
        error,
        yes=yes,
        otherwise="Leave out --no-backup, or add --yes.",
        declined="Leave out --no-backup to make a backup first.",
    )


def confirm(
    consequence: str, error: type[SyntegraDBError], *, yes: bool, otherwise: str = "Add --yes.", declined: str = ""
) -> None:
    """Print `consequence`, and raise `error` unless the user confirms it or `yes` is set.

    `otherwise` is what to do without a terminal, and `declined` after the answer no.
    """
    report(consequence, level=logging.WARNING)
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise error(f"No terminal to confirm at; nothing was changed. {otherwise}")
    # Not typer.confirm, which takes Ctrl-C for the answer no.
    with report_if_interrupted(lambda: "Nothing was changed."):
        echo("Continue? [y/N] ", err=True, newline=False)
        answer = sys.stdin.readline().strip().lower()
    if answer not in {"y", "yes"}:
        raise error(f"Nothing was changed. {declined}".rstrip())
