"""Taking over a database whose tables were made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.adoption import AdoptionInput, AdoptionPlan, AdoptionResult, SchemaChange

Values = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="TABLE.COLUMN=VALUE", help="Value for rows that have none; or an SQL expression."),
]
Timezone = Annotated[
    str | None,
    typer.Option(help="Zone of points in time that name none, such as Europe/Madrid.  [default: the server's]"),
]


def adopt(  # noqa: PLR0913  an option each
    values: Values = None,
    timezone: Timezone = None,
    *,
    apply: Annotated[bool, typer.Option("--apply", help="Do it, after a backup of the whole database.")] = False,
    no_backup: Annotated[bool, typer.Option("--no-backup", help="Make no backup first.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask about --no-backup.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Take over tables that were made by hand: print what would change, and with --apply change it."""
    from syntegra_db import adoption
    from syntegra_db.adoption._apply import require_no_open_questions
    from syntegra_db.adoption._backfills import parse_assignments
    from syntegra_db.cli.output import print_json
    from syntegra_db.connections import connect, unpooled_engine
    from syntegra_db.settings import database_url, describe_database

    url = database_url()
    answers = adoption.AdoptionInput(parse_assignments(values or []), timezone)
    if apply:
        _apply(answers, no_backup=no_backup, yes=yes, json_output=json_output)
        return
    with connect(unpooled_engine(url)) as connection:
        # What an answer calls must not write either.
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        plan = adoption.plan(connection, answers)
    if json_output:
        print_json(plan)
    else:
        _print(plan, describe_database(url))
    if plan.open_questions:
        require_no_open_questions(plan)


def _apply(answers: AdoptionInput, *, no_backup: bool, yes: bool, json_output: bool) -> None:
    from syntegra_db import adoption
    from syntegra_db.cli.output import confirm_no_backup, print_json
    from syntegra_db.cli.progress import progress_on_stderr
    from syntegra_db.errors import AdoptionNotPossible
    from syntegra_db.migrations import load_migration_options
    from syntegra_db.settings import database_url, describe_database

    url = database_url()
    if no_backup:
        cost = "Without a backup, nothing but the transaction itself stands between the rows and a mistake."
        confirm_no_backup(cost, AdoptionNotPossible, yes=yes)
    with progress_on_stderr():
        done = adoption.apply(url, answers, load_migration_options(), backup=not no_backup)
    if json_output:
        print_json(done)
    else:
        _print_done(done, describe_database(url))


def _print_done(done: AdoptionResult, where: str) -> None:
    if not done.rows and done.plan.is_empty:
        typer.echo(f"There is nothing to do: the {where} is at revision {done.plan.revision} and holds what it should.")
        return
    if done.backup is not None:
        typer.echo(f"Backup of the whole database: {done.backup}. To go back: pg_restore into an empty database.")
    rows = ", ".join(f"{table} {count:,}" for table, count in done.rows.items())
    typer.echo(f"The same rows as before, column by column: {rows}.")
    typer.echo(f"The {where} is at revision {done.plan.revision}.")


def _print(plan: AdoptionPlan, where: str) -> None:
    from syntegra_db.revisions import describe_revision

    if plan.is_empty:
        typer.echo(f"There is nothing to do: the {where} is at revision {plan.revision} and holds what it should.")
        return
    typer.echo(f"The {where} says {describe_revision(plan.stamped)} and comes closest to revision {plan.revision}.")
    for heading, lines in (
        ("Matches", plan.matches),
        ("Stays as it is", plan.kept),
        ("Changes without touching a row", tuple(_changes((*plan.preparations, *plan.changes)))),
        (
            "Gets values",
            tuple(f"{each.table}.{each.column} = {each.expression}, {each.rows:,} rows" for each in plan.backfills),
        ),
        ("Writes tables anew, while nobody else can read or write them", tuple(_rewrites(plan))),
        ("Needs a decision", tuple(_decisions(plan))),
    ):
        if lines:
            typer.secho(f"\n{heading}", bold=True)
        for line in lines:
            typer.echo(f"  {line}")
    if not plan.open_questions:
        typer.echo("\nThis was a plan. To carry it out: the same command with --apply")


def _changes(changes: tuple[SchemaChange, ...]) -> Iterator[str]:
    """Yield the changes a line each, but the comments, which are many, as a number."""
    comments = [change for change in changes if change.statements[0].startswith("COMMENT ON")]
    for change in changes:
        if change not in comments:
            yield f"{change.object}: {change.expected} ← {change.found}"
    if comments:
        yield f"comments: {len(comments)}"


def _rewrites(plan: AdoptionPlan) -> Iterator[str]:
    from rich.filesize import decimal

    for rewrite in plan.rewrites:
        seconds = f"about {rewrite.seconds:,.0f} s" if rewrite.seconds >= 1 else "less than a second"
        yield f"{rewrite.table}: {rewrite.rows:,} rows, {decimal(rewrite.bytes)}, {seconds}"
        yield from (f"  {column}" for column in rewrite.columns)


def _decisions(plan: AdoptionPlan) -> Iterator[str]:
    from syntegra_db.adoption._apply import describe_question

    yield from (describe_question(decision) for decision in plan.open_questions)
