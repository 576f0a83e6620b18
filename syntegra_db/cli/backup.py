"""Commands: back up, list backups, and restore."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from syntegra_db import wording
from syntegra_db.cli.arguments import (
    Json,
    LockRetryTimeout,
    LockTimeout,
    MigrationLockTimeout,
    require_printable,
)
from syntegra_db.cli.output import echo, print_json, print_table
from syntegra_db.errors import escape_control_characters
from syntegra_db.interruption import report_if_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import URL

    from syntegra_db.backup import Backup, RestoreResult, RowProgress
    from syntegra_db.cli.results import BackupFile, ListedBackup, RestoreSummary

Output = Annotated[
    Path | None,
    typer.Option(
        dir_okay=False,
        callback=require_printable,
        help="File to write.  [default: backups/DATABASE-REVISION-TIME.dump]",
    ),
]


def backup(output: Output = None, *, json_output: Json = False) -> None:
    """Back up the rows of all tables and their revision, in one snapshot, while services continue to write."""
    from syntegra_db.backup import create_backup
    from syntegra_db.connections import unpooled_engine
    from syntegra_db.settings import database_url

    engine = unpooled_engine(database_url(), "syntegra_db backup")
    unwritten = report_if_interrupted(lambda: "No backup was written.", unless_reported=True)
    with row_progress("Backing up") as report, unwritten:
        result = create_backup(engine, output, report=report)
    if json_output:
        print_json(backup_file(result))
    else:
        echo(f"{summarize(result)}: {result.path}")


def backups(
    directory: Annotated[Path | None, typer.Argument(file_okay=False, exists=True, help="[default: backups]")] = None,
    *,
    json_output: Json = False,
) -> None:
    """List the backups, after verifying their checksums; the exit status is 18 if one is damaged."""
    from syntegra_db.backup import DEFAULT_DIRECTORY, SUFFIX
    from syntegra_db.cli.results import BackupList
    from syntegra_db.errors import InvalidBackup

    directory = directory or DEFAULT_DIRECTORY
    listed = [_inspect(file) for file in sorted(directory.glob(f"*{SUFFIX}"))]
    if json_output:
        print_json(BackupList(directory, listed))
    elif listed:
        print_table(("File", "Revision", "Rows", "Size", "Checksum"), [_listed_row(file) for file in listed])
    else:
        echo(f"There is no backup in {directory}.")
    if any(file.state != "valid" for file in listed):
        raise typer.Exit(InvalidBackup.exit_status)


def _inspect(file: Path) -> ListedBackup:
    from syntegra_db.backup import read_metadata, verify_checksum
    from syntegra_db.cli.results import ListedBackup
    from syntegra_db.errors import InvalidBackup

    try:
        backup = backup_file(read_metadata(file))
    except InvalidBackup:
        return ListedBackup(file, "unreadable", None)
    try:
        verify_checksum(file)
    except InvalidBackup:
        return ListedBackup(file, "damaged", backup)
    return ListedBackup(file, "valid", backup)


def _listed_row(file: ListedBackup) -> tuple[str, str, str, str, str]:
    from rich.filesize import decimal

    name = escape_control_characters(str(file.path))
    if file.backup is None:
        return name, "", "", "", "none: truncated, damaged or not a backup"
    rows = "\n".join(f"{table} {count:,}" for table, count in file.backup.tables.items())
    state = "valid" if file.state == "valid" else "invalid: damaged"
    return name, file.backup.revision, rows, decimal(file.backup.bytes), state


def restore(  # noqa: PLR0913  an option each
    file: Annotated[Path, typer.Argument(help="A backup that `syntegra-db backups` lists.")],
    lock_timeout: LockTimeout = None,
    lock_retry_timeout: LockRetryTimeout = None,
    migration_lock_timeout: MigrationLockTimeout = None,
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Delete the existing rows first.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Load the empty tables, and the columns that the restore brings back.")
    ] = False,
    replace_column: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE.COLUMN", help="With --keep: also replace the values of this column, by id."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Restore the rows of a backup, all or none; fails if tables are not empty."""
    from syntegra_db import backup as backups
    from syntegra_db.backup import ExistingRows
    from syntegra_db.connections import unpooled_engine
    from syntegra_db.migrations import load_migration_options
    from syntegra_db.settings import database_url

    if replace and keep:
        raise typer.BadParameter("--replace and --keep exclude each other")
    columns = [(table, column) for table, _, column in (name.partition(".") for name in replace_column or ())]
    if columns and not (keep and all(column for _, column in columns)):
        raise typer.BadParameter("--replace-column needs --keep, and the name of a table and a column: TABLE.COLUMN")
    options = load_migration_options(
        lock_timeout=lock_timeout,
        lock_retry_timeout=lock_retry_timeout,
        migration_lock_timeout=migration_lock_timeout,
    )
    engine = unpooled_engine(database_url(), "syntegra_db restore")
    existing_rows = ExistingRows.REPLACE if replace else ExistingRows.KEEP if keep else ExistingRows.REFUSE
    with row_progress("Restoring") as report:
        result = backups.restore(
            file,
            engine,
            existing_rows,
            replace_columns=columns,
            options=options,
            report=report,
        )
    if json_output:
        print_json(_restore_summary(result, engine.url))
    else:
        _print_restored(result, engine.url)


def _restore_summary(result: RestoreResult, url: URL) -> RestoreSummary:
    from syntegra_db.cli.results import RestoreSummary
    from syntegra_db.settings import describe_database

    metadata = result.backup.metadata
    loaded = {name: metadata.tables[name].rows for name in result.loaded}
    return RestoreSummary(describe_database(url), metadata.revision, loaded, result.kept, result.columns)


def _print_restored(result: RestoreResult, url: URL) -> None:
    from syntegra_db.settings import describe_database

    metadata = result.backup.metadata
    rows = sum(metadata.tables[name].rows for name in result.loaded)
    echo(f"Restored {wording.rows(rows)} to the {describe_database(url)}, at revision {metadata.revision}.")
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


def backup_file(backup: Backup) -> BackupFile:
    """Return what `--json` prints of a backup."""
    from syntegra_db.cli.results import BackupFile

    metadata = backup.metadata
    return BackupFile(
        path=backup.path,
        bytes=backup.size,
        database=metadata.database,
        schema=metadata.schema,
        revision=metadata.revision,
        made_at=datetime.fromisoformat(metadata.made_at),
        server_version=metadata.server_version,
        rows=metadata.rows,
        tables={name: table.rows for name, table in metadata.tables.items()},
    )


def summarize(backup: Backup) -> str:
    """Return the beginning of the sentence that reports a new backup."""
    from rich.filesize import decimal

    rows, database, revision = backup.metadata.rows, backup.metadata.database, backup.metadata.revision
    return f"Saved {wording.rows(rows)} of {database} at revision {revision}, {decimal(backup.size)}"


@contextmanager
def row_progress(title: str) -> Iterator[Callable[[RowProgress], None] | None]:
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
