"""Load the demo into the configured database and answer three questions with it."""

from __future__ import annotations

import sys
from datetime import UTC
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from demo.load import Loaded, Sector, client_id, load, sector_name
from demo.questions import emergent_trends, latest_kpis, nearest_texts
from syntegra_db.database import create_engine, session_factory
from syntegra_db.errors import EXIT_INTERRUPTED, SyntegraDBError
from syntegra_db.migrations import require_head
from syntegra_db.models import TextSummary
from syntegra_db.settings import database_url, describe_database

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import URL
    from sqlalchemy.orm import Session

GLUTEN_FREE_BREAD = 36  # a text with close neighbours: others about "sin gluten"

# What stands in the database is printed as it is, brackets and colons too.
console = Console(markup=False, emoji=False, highlight=False)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def demo(
    client: Annotated[int, typer.Option(min=1, max=len(Sector), help="Client whose KPIs to show.")] = 1,
    sector: Annotated[Sector, typer.Option(help="Sector whose trends to show.")] = Sector.RESTAURANT,
    text: Annotated[
        int, typer.Option(min=1, help="Text whose neighbours to show, by its place in demo/texts.csv from 1.")
    ] = GLUTEN_FREE_BREAD,
) -> None:
    """Load a small data set into the configured database and answer three questions with it."""
    url = database_url()
    engine = create_engine(url, application_name="syntegra_db demo")
    try:
        require_head(engine)
        sessions = session_factory(engine)
        with sessions.begin() as session:
            loaded = load(session)
        if text > len(loaded.text_ids):
            raise typer.BadParameter(f"the demo has texts 1 to {len(loaded.text_ids)}", param_hint="--text")
        show_load(loaded, url)
        with sessions() as session:
            show_kpis(session, client)
            show_trends(session, sector)
            show_neighbours(session, loaded.text_ids, text)
    finally:
        engine.dispose()


def show_load(loaded: Loaded, url: URL) -> None:
    """Print how many rows each table was given."""
    table = Table("Table")
    table.add_column("Rows", justify="right")
    for name, rows in loaded.rows.items():
        table.add_row(name, str(rows))
    show(f"Loaded into the {describe_database(url)}", table)


def show_kpis(session: Session, client: int) -> None:
    """Print the latest KPIs of client `client` of the files."""
    table = Table("KPI", "Period")
    table.add_column("Value", justify="right")
    table.add_column("Unit")
    for kpi in latest_kpis(session, client_id(client)):
        table.add_row(kpi.kpi_name, period(kpi.period_start, kpi.period_end), str(kpi.value), kpi.unit)
    show(f"1. The latest KPIs of client {client} (client_id {client_id(client)})", table)


def show_trends(session: Session, sector: Sector) -> None:
    """Print the emergent trends of a sector of the files."""
    table = Table("Term", "Period")
    table.add_column("Uses", justify="right")
    table.add_column("Change", justify="right")
    for trend in emergent_trends(session, sector_name(sector)):
        change = "" if trend.delta_pct is None else f"{trend.delta_pct:+.1f} %"
        table.add_row(trend.term, period(trend.period_start, trend.period_end), str(trend.frequency), change)
    show(f"2. The emergent trends of the sector {sector} (sector {sector_name(sector)!r})", table)


def show_neighbours(session: Session, text_ids: list[int], number: int) -> None:
    """Print the texts nearest to text `number`, counted from 1 as in `text_ids`."""
    asked = session.get_one(TextSummary, text_ids[number - 1])
    table = Table()
    table.add_column("Text", justify="right")
    table.add_column("Distance", justify="right")
    table.add_column("Sentiment")
    table.add_column("What it says")
    for near in nearest_texts(session, asked.id):
        place = text_ids.index(near.text_id) + 1
        table.add_row(str(place), f"{near.distance:.3f}", near.sentiment, near.text)
    heading = f"3. The five texts of its client nearest to text {number} (cosine distance, 0 to 2)"
    show(f"{heading}\n   {asked.text_field}", table)


def show(heading: str, table: Table) -> None:
    """Print a table under its heading, or that it has no rows."""
    console.print()
    console.print(heading, style="bold")
    console.print(table if table.row_count else "There are none.")


def period(start: datetime, end: datetime) -> str:
    """Return a period as its first day and the day after its last, in UTC."""
    return f"{start.astimezone(UTC):%Y-%m-%d} to {end.astimezone(UTC):%Y-%m-%d}"


def main() -> None:
    """Run the demo; an error of the package is one line on standard error and its exit status."""
    try:
        app(prog_name="python -m demo")
    except SyntegraDBError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
