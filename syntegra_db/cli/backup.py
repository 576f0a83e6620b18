"""Backups, putting them back, and going back to an older revision with one."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from syntegra_db.backup import Backup, RowProgress

Output = Annotated[
    Path | None,
    typer.Option(dir_okay=False, help="File to write.  [default: backups/DATABASE-REVISION-TIME.dump]"),
]


def backup(output: Output = None) -> None:
    """Save the rows of all tables and their revision, at one moment, while services go on writing."""
    from syntegra_db.backup import create_backup
    from syntegra_db.settings import database_url

    with _row_progress("Saving") as report:
        made = create_backup(database_url(), output, report=report)
    typer.echo(f"{_summary(made)}: {made.path}")


def backups(
    folder: Annotated[
        Path | None, typer.Argument(file_okay=False, help="Folder to look in.  [default: backups]")
    ] = None,
) -> None:
    """List the backups that there are, after checking every byte of them."""
    from rich.filesize import decimal

    from syntegra_db.backup import DEFAULT_DIRECTORY, read_metadata, verify_checksum
    from syntegra_db.backup._files import SUFFIX
    from syntegra_db.cli.output import print_table
    from syntegra_db.errors import InvalidBackup

    lines = []
    for file in sorted((folder or DEFAULT_DIRECTORY).glob(f"*{SUFFIX}")):
        try:
            backup = read_metadata(file)
        except InvalidBackup:
            lines.append((str(file), "", "", decimal(file.stat().st_size), "none: cut short, or not a backup"))
            continue
        try:
            verify_checksum(file)
            state = "right"
        except InvalidBackup:
            state = "wrong: damaged"
        rows = "\n".join(f"{name} {counted.rows:,}" for name, counted in backup.contents.tables.items())
        lines.append((str(file), backup.contents.revision, rows, decimal(backup.size), state))
    if lines:
        print_table(("File", "Revision", "Rows", "Size", "Checksum"), lines)
    else:
        typer.echo(f"There is no backup in {folder or DEFAULT_DIRECTORY}.")


def restore(
    file: Annotated[Path, typer.Argument(help="A backup, as `syntegra-db backups` lists them.")],
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put its rows in place of those that the tables hold.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave tables that hold rows as they are, and fill the others.")
    ] = False,
) -> None:
    """Put the rows of a backup back, all or none; refuses where there are rows already."""
    from syntegra_db import backup as backups
    from syntegra_db.backup import ExistingRows
    from syntegra_db.migrations import load_migration_options
    from syntegra_db.settings import database_url, describe_database

    if replace and keep:
        raise typer.BadParameter("--replace and --keep exclude each other")
    url = database_url()
    occupied = ExistingRows.REPLACE if replace else ExistingRows.KEEP if keep else ExistingRows.REFUSE
    with _row_progress("Restoring") as report:
        done = backups.restore(file, url, occupied, options=load_migration_options(), report=report)
    rows = sum(done.backup.contents.tables[name].rows for name in done.filled)
    typer.echo(f"Restored {rows:,} rows to the {describe_database(url)}, at revision {done.backup.contents.revision}.")
    if done.kept:
        typer.echo(f"Left as they are, with rows of their own: {', '.join(done.kept)}.")


def rollback(
    revision: Annotated[str, typer.Argument(help="Revision to go back to, such as 002, or base.")],
    output: Output = None,
    *,
    no_backup: Annotated[bool, typer.Option("--no-backup", help="Lose the rows of the tables that go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --no-backup: do not ask.")] = False,
) -> None:
    """Go back to an older revision after a backup that was read back and counted, and say how to restore it."""
    from syntegra_db import backup as backups
    from syntegra_db.migrations import load_migration_options
    from syntegra_db.revisions import describe_revision
    from syntegra_db.settings import database_url, describe_database

    url, options = database_url(), load_migration_options()
    if no_backup:
        _roll_back_without_backup(revision, yes=yes)
        return
    with _row_progress("Saving") as report:
        done = backups.rollback(revision, url, output, options=options, report=report)
    typer.echo(f"{_summary(done.backup)}, read back and counted: {done.backup.path}")
    typer.echo(f"The {describe_database(url)} is at {describe_revision(done.revision)}.")
    typer.echo(f"To bring the rows back:\n  {done.restore_command}")


def _roll_back_without_backup(revision: str, *, yes: bool) -> None:
    from syntegra_db.backup import describe_rollback_loss
    from syntegra_db.cli.migrate import downgrade
    from syntegra_db.cli.output import confirm_no_backup
    from syntegra_db.errors import ConfirmationRequired
    from syntegra_db.settings import database_url, describe_database

    url = database_url()
    lost = describe_rollback_loss(revision, url)
    confirm_no_backup(
        f"Without a backup, the {describe_database(url)} loses for good: {lost}.", ConfirmationRequired, yes=yes
    )
    downgrade(revision)


def _summary(made: Backup) -> str:
    from rich.filesize import decimal

    contents = made.contents
    return f"Saved {contents.rows:,} rows of {contents.database} at revision {contents.revision}, {decimal(made.size)}"


@contextmanager
def _row_progress(title: str) -> Iterator[Callable[[RowProgress], None] | None]:
    """Show rows and bytes below the log at a terminal."""
    from rich.filesize import decimal

    from syntegra_db.cli.progress import progress_bar

    with progress_bar(title) as show:
        yield show and (
            lambda progress: show(
                f"{title} {progress.rows:,}/{progress.total_rows:,} rows, {decimal(progress.bytes)}",
                progress.rows,
                progress.total_rows,
            )
        )
