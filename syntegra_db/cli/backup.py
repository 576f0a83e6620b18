"""Commands: back up, list backups, restore, and roll back with a backup."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from syntegra_db import wording
from syntegra_db.cli.arguments import require_printable, require_revision
from syntegra_db.cli.output import confirm_no_backup, echo, print_table
from syntegra_db.errors import escape_control_characters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from syntegra_db.backup import Backup, RollbackResult, RowProgress

Output = Annotated[
    Path | None,
    typer.Option(
        dir_okay=False,
        callback=require_printable,
        help="File to write.  [default: backups/DATABASE-REVISION-TIME.dump]",
    ),
]


def backup(output: Output = None) -> None:
    """Back up the rows of all tables and their revision, in one snapshot, while services continue to write."""
    from syntegra_db.backup import create_backup
    from syntegra_db.connections import unpooled_engine
    from syntegra_db.settings import database_url

    engine = unpooled_engine(database_url(), "syntegra_db backup")
    with _row_progress("Backing up") as report:
        result = create_backup(engine, output, report=report)
    echo(f"{_summary(result)}: {result.path}")


def backups(
    directory: Annotated[Path | None, typer.Argument(file_okay=False, exists=True, help="[default: backups]")] = None,
) -> None:
    """List the backups, after verifying their checksums; the exit status is 18 if one is damaged."""
    from rich.filesize import decimal

    from syntegra_db.backup import DEFAULT_DIRECTORY, SUFFIX, read_metadata, verify_checksum
    from syntegra_db.errors import InvalidBackup

    lines = []
    damaged = False
    for file in sorted((directory or DEFAULT_DIRECTORY).glob(f"*{SUFFIX}")):
        name = escape_control_characters(str(file))
        try:
            backup = read_metadata(file)
        except InvalidBackup:
            lines.append((name, "", "", "", "none: truncated, damaged or not a backup"))
            damaged = True
            continue
        try:
            verify_checksum(file)
            state = "valid"
        except InvalidBackup:
            state = "invalid: damaged"
            damaged = True
        rows = "\n".join(f"{name} {table.rows:,}" for name, table in backup.metadata.tables.items())
        lines.append((name, backup.metadata.revision, rows, decimal(backup.size), state))
    if lines:
        print_table(("File", "Revision", "Rows", "Size", "Checksum"), lines)
    else:
        echo(f"There is no backup in {directory or DEFAULT_DIRECTORY}.")
    if damaged:
        raise typer.Exit(InvalidBackup.exit_status)


def restore(
    file: Annotated[Path, typer.Argument(help="A backup that `syntegra-db backups` lists.")],
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Delete the existing rows first.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Load the empty tables, and the columns that the restore brings back.")
    ] = False,
    replace_column: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE.COLUMN", help="With --keep: also replace the values of this column, by id."),
    ] = None,
) -> None:
    """Restore the rows of a backup, all or none; fails if tables are not empty."""
    from syntegra_db import backup as backups
    from syntegra_db.backup import ExistingRows
    from syntegra_db.connections import unpooled_engine
    from syntegra_db.migrations import load_migration_options
    from syntegra_db.settings import database_url, describe_database

    if replace and keep:
        raise typer.BadParameter("--replace and --keep exclude each other")
    columns = [(table, column) for table, _, column in (name.partition(".") for name in replace_column or ())]
    if columns and not (keep and all(column for _, column in columns)):
        raise typer.BadParameter("--replace-column needs --keep, and the name of a table and a column: TABLE.COLUMN")
    engine = unpooled_engine(database_url(), "syntegra_db restore")
    existing_rows = ExistingRows.REPLACE if replace else ExistingRows.KEEP if keep else ExistingRows.REFUSE
    with _row_progress("Restoring") as report:
        result = backups.restore(
            file,
            engine,
            existing_rows,
            replace_columns=columns,
            options=load_migration_options(),
            report=report,
        )
    metadata = result.backup.metadata
    rows = sum(metadata.tables[name].rows for name in result.loaded)
    echo(f"Restored {wording.rows(rows)} to the {describe_database(engine.url)}, at revision {metadata.revision}.")
    for restored in result.columns:
        echo(f"Restored {restored.label} in {wording.rows(restored.rows)}.")
        if restored.changed_rows:
            echo(
                f"Changed since the backup, so not restored: {restored.label} in "
                f"{wording.rows(restored.changed_rows)}. --replace-column {restored.label} restores them, too."
            )
    changed = {restored.table for restored in result.columns}
    if unchanged := [name for name in result.kept if name not in changed]:
        echo(f"Not empty, so not changed: {', '.join(unchanged)}.")


def rollback(
    revision: Annotated[
        str, typer.Argument(callback=require_revision, help="Older revision, such as 002, -1 or base.")
    ],
    output: Output = None,
    *,
    no_backup: Annotated[bool, typer.Option("--no-backup", help="Delete rows and values without a backup.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --no-backup: do not prompt.")] = False,
) -> None:
    """Downgrade to an older revision after a verified backup, and print the command that restores the rows."""
    from syntegra_db import backup as backups
    from syntegra_db.cli.migrate import downgrade
    from syntegra_db.connections import unpooled_engine
    from syntegra_db.errors import ConfirmationRequired
    from syntegra_db.migrations import load_migration_options
    from syntegra_db.revisions import describe_revision
    from syntegra_db.settings import database_url, describe_database

    engine = unpooled_engine(database_url(), "syntegra_db rollback")
    database, options = describe_database(engine.url), load_migration_options()
    if no_backup:
        if lost := backups.describe_rollback_loss(revision, engine):
            loss = f"Without a backup, the {database} permanently loses {lost}."
            confirm_no_backup(loss, ConfirmationRequired, yes=yes)
        downgrade(revision)
        return
    with ExitStack() as progress:
        report = progress.enter_context(_row_progress("Backing up"))

        def print_result(result: RollbackResult) -> None:
            progress.close()
            echo(f"{_summary(result.backup)}, verified: {result.backup.path}")
            echo(f"The {database} is at {describe_revision(result.revision)}.")
            echo(f"To restore the rows:\n  {result.restore_command}")
            progress.enter_context(_row_progress("Verifying the schema"))

        backups.rollback(revision, engine, output, options=options, report=report, on_commit=print_result)


def _summary(backup: Backup) -> str:
    from rich.filesize import decimal

    rows, database, revision = backup.metadata.rows, backup.metadata.database, backup.metadata.revision
    return f"Saved {wording.rows(rows)} of {database} at revision {revision}, {decimal(backup.size)}"


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
