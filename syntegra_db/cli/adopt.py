"""Command: adopt tables that were created outside migrations."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from syntegra_db import wording
from syntegra_db.cli.arguments import Json, LockRetryTimeout, LockTimeout, MigrationLockTimeout, Schema
from syntegra_db.cli.confirmation import confirm_no_backup
from syntegra_db.cli.output import echo, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from syntegra_db.adoption import AdoptionInput, AdoptionPlan, AdoptionResult, SchemaChange

WRITERS = "From now on, programs that write rows must give"
Values = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="TABLE.COLUMN=VALUE",
        help="Value, or SQL expression, for rows that have none. An expression may use the columns of the row, "
        "subqueries and functions of PostgreSQL; volatile functions such as random(), and whatever can run a function "
        "that a user created, are rejected.",
    ),
]
Timezone = Annotated[
    str | None,
    typer.Option(help="Time zone of naive timestamps, such as Europe/Madrid.  [default: the server's]"),
]
AcceptedLosses = Annotated[
    list[str] | None,
    typer.Option(
        "--accept-loss",
        metavar="TABLE.COLUMN",
        help="Convert this column even if digits of numbers are rounded, -0 is stored as 0 or duplicate keys of JSON "
        "objects are removed; the plan says how many rows that changes.",
    ),
]


def adopt(  # noqa: PLR0913  an option each
    values: Values = None,
    timezone: Timezone = None,
    accept_loss: AcceptedLosses = None,
    schema: Schema = None,
    *,
    lock_timeout: LockTimeout = None,
    lock_retry_timeout: LockRetryTimeout = None,
    migration_lock_timeout: MigrationLockTimeout = None,
    apply: Annotated[bool, typer.Option("--apply", help="Apply the plan, after a backup of the database.")] = False,
    no_backup: Annotated[bool, typer.Option("--no-backup", help="Make no backup first.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --no-backup: do not prompt.")] = False,
    json_output: Json = False,
) -> None:
    """Adopt tables that were created outside migrations: print the plan, and with --apply change the tables."""
    from syntegra_db import adoption
    from syntegra_db.cli.progress import migration_progress
    from syntegra_db.connections import connect, unpooled_engine
    from syntegra_db.errors import AdoptionNotPossible
    from syntegra_db.migrations import load_migration_options
    from syntegra_db.search_path import with_schema
    from syntegra_db.settings import database_url, describe_database

    try:
        assignments = adoption.parse_assignments(values or [])
        accepted = adoption.parse_columns(accept_loss or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    options = load_migration_options(
        lock_timeout=lock_timeout,
        lock_retry_timeout=lock_retry_timeout,
        migration_lock_timeout=migration_lock_timeout,
    )
    engine = with_schema(unpooled_engine(database_url(), "syntegra_db adoption"), schema)
    database = describe_database(engine.url)
    supplied = adoption.AdoptionInput(assignments, timezone, accepted)
    if apply:
        if no_backup:
            warning = "Without a backup, rows that a mistake deletes cannot be restored."
            confirm_no_backup(warning, AdoptionNotPossible, yes=yes)
        with migration_progress():
            result = adoption.apply(engine, supplied, options, backup=not no_backup)
        if json_output:
            print_json(result)
        else:
            _print_result(result, database)
        return
    with connect(engine) as connection:
        plan = adoption.plan(connection, supplied)
    if json_output:
        print_json(plan)
    else:
        _print_plan(plan, _arguments(supplied, schema), database)
    adoption.require_no_open_questions(plan)


def _print_result(result: AdoptionResult, database: str) -> None:
    if not result.rows and result.plan.is_empty:
        _print_nothing_to_do(result.plan, database)
        return
    if result.backup is not None:
        echo(f"Backup of the whole database: {result.backup}. To go back: pg_restore into an empty database.")
    rows = ", ".join(f"{table} {count:,}" for table, count in result.rows.items())
    losses = "; ".join(_losses(result.plan))
    exceptions = f", except as accepted ({losses})" if losses else ""
    echo(f"All rows are unchanged, verified column by column{exceptions}: {rows}.")
    _print_group(WRITERS, _writers(result.plan))
    echo(f"The {database} is at revision {result.plan.revision}.")


def _print_nothing_to_do(plan: AdoptionPlan, database: str) -> None:
    echo(f"There is nothing to do: the {database} is at revision {plan.revision} and its schema is as declared.")


def _print_plan(plan: AdoptionPlan, arguments: list[str], database: str) -> None:
    from syntegra_db.adoption import describe_question
    from syntegra_db.revisions import describe_revision

    if plan.is_empty:
        _print_nothing_to_do(plan, database)
        return
    echo(f"The {database} is at {describe_revision(plan.stamped)} and closest to revision {plan.revision}.")
    for heading, lines in {
        "Matches": plan.matches,
        "Is kept": plan.kept,
        "Changes without touching rows": _changes((*plan.preparations, *plan.changes)),
        "Is backfilled": [
            f"{fill.table}.{fill.column} = {fill.expression}, {wording.rows(fill.rows)}" for fill in plan.backfills
        ],
        "Rewrites tables, while other sessions can neither read nor write them": _rewrites(plan),
        "Changes values, as accepted with --accept-loss": _losses(plan),
        WRITERS: _writers(plan),
        "Needs a decision": [describe_question(question) for question in plan.open_questions],
        "The same command with the suggested options": _suggested_command(plan, arguments),
    }.items():
        _print_group(heading, lines)
    if not plan.open_questions:
        echo("\nNothing was changed. To apply this plan: the same command with --apply")


def _print_group(heading: str, lines: Sequence[str]) -> None:
    if lines:
        echo(f"\n{heading}", bold=True)
    for line in lines:
        echo("  " + line)


def _arguments(supplied: AdoptionInput, schema: str | None) -> list[str]:
    """Return the arguments of the command for an input."""
    options = [
        *(("--set", f"{name}={value}") for name, value in supplied.values.items()),
        *((("--timezone", supplied.timezone),) if supplied.timezone else ()),
        *(("--accept-loss", name) for name in supplied.accepted_losses),
        *((("--schema", schema),) if schema else ()),
    ]
    return [argument for option in options for argument in option]


def _suggested_command(plan: AdoptionPlan, arguments: list[str]) -> list[str]:
    """Return the command with `arguments` and the suggested options, or nothing if none is suggested."""
    suggested = [argument for question in plan.open_questions for argument in question.option]
    return [shlex.join(["syntegra-db", "adopt", *arguments, *suggested])] if suggested else []


def _losses(plan: AdoptionPlan) -> list[str]:
    return [f"{loss.table}.{loss.column}, {wording.rows(loss.rows)}, {loss.effect}" for loss in plan.losses]


def _writers(plan: AdoptionPlan) -> list[str]:
    return [f"{writer.object}: {writer.requirement}" for writer in plan.writers]


def _changes(changes: tuple[SchemaChange, ...]) -> list[str]:
    """Return one line per change, also of a constraint that is dropped and created; comments, many, are counted."""
    comments = [change for change in changes if change.statements[0].startswith("COMMENT ON")]
    replaced = {change.object for change in changes if change.expected.startswith("replaced by ")}
    lines = [
        f"{change.object}: {change.expected} ← {change.found}"
        for change in changes
        if change not in comments and not (change.object in replaced and change.found == "no such constraint")
    ]
    return [*lines, f"comments: {len(comments)}"] if comments else lines


def _rewrites(plan: AdoptionPlan) -> list[str]:
    from rich.filesize import decimal

    lines = []
    for rewrite in plan.rewrites:
        seconds = f"about {rewrite.seconds:,.0f} s" if rewrite.seconds >= 1 else "less than a second"
        lines.append(f"{rewrite.table}: {wording.rows(rewrite.rows)}, {decimal(rewrite.bytes)}, {seconds}")
        lines += [f"  {column}" for column in rewrite.columns]
    return lines
