"""Load the demo into the configured database and run three example queries."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from demo.load import Loaded, Sector, client_id, load, sector_name
from demo.questions import emergent_trends, latest_kpis, nearest_texts
from syntegra_db.cli.exit import exit_with_status
from syntegra_db.database import create_engine, session_factory
from syntegra_db.libpq_options import remove_session_variables
from syntegra_db.migrations import require_head
from syntegra_db.models import TextSummary
from syntegra_db.settings import database_url, describe_database, is_configured

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import URL
    from sqlalchemy.orm import Session

GLUTEN_FREE_BREAD = 36  # a text with near neighbours: other texts about "sin gluten"

# Print stored texts literally: Rich would interpret brackets and colons.
console = Console(markup=False, emoji=False, highlight=False)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def demo(
    client: Annotated[int, typer.Option(min=1, max=len(Sector), help="Client whose KPIs are shown.")] = 1,
    sector: Annotated[Sector, typer.Option(help="Sector whose trends are shown.")] = Sector.RESTAURANT,
    text: Annotated[
        int, typer.Option(min=1, help="Text whose neighbours are shown: its row number in demo/texts.csv, from 1.")
    ] = GLUTEN_FREE_BREAD,
) -> None:
    """Load a small data set into the configured database and run three example queries."""
    # Inside Typer, which exits with 130 for every signal.
    with exit_with_status():
        if not is_configured():
            remove_session_variables()
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
    """Print the number of loaded rows of each table."""
    table = Table("Table")
    table.add_column("Rows", justify="right")
    for name, rows in loaded.rows.items():
        table.add_row(name, str(rows))
    show(f"Loaded into the {describe_database(url)}", table)


def show_kpis(session: Session, client: int) -> None:
    """Print the latest KPIs of a client, by its number in the files."""
    table = Table("KPI", "Period")
    table.add_column("Value", justify="right")
    table.add_column("Unit")
    for kpi in latest_kpis(session, client_id(client)):
        table.add_row(kpi.kpi_name, period(kpi.period_start, kpi.period_end), str(kpi.value), kpi.unit)
    show(f"1. The latest KPIs of client {client} (client_id {client_id(client)})", table)


def show_trends(session: Session, sector: Sector) -> None:
    """Print the emergent trends of a sector, by its name in the files."""
    table = Table("Term", "Period")
    table.add_column("Uses", justify="right")
    table.add_column("Change", justify="right")
    for trend in emergent_trends(session, sector_name(sector)):
        change = "" if trend.delta_pct is None else f"{trend.delta_pct:+.1f} %"
        table.add_row(trend.term, period(trend.period_start, trend.period_end), str(trend.frequency), change)
    show(f"2. The emergent trends of the sector {sector} (sector {sector_name(sector)!r})", table)


def show_neighbours(session: Session, text_ids: list[int], number: int) -> None:
    """Print the texts nearest to text `number` of `text_ids`, counted from 1."""
    query_text = session.get_one(TextSummary, text_ids[number - 1])
    table = Table()
    table.add_column("Text", justify="right")
    table.add_column("Distance", justify="right")
    table.add_column("Sentiment")
    table.add_column("Content")
    for near in nearest_texts(session, query_text.id):
        row_number = text_ids.index(near.text_id) + 1
        table.add_row(str(row_number), f"{near.distance:.3f}", near.sentiment, near.text)
    heading = f"3. The five texts of the same client nearest to text {number} (cosine distance, 0 to 2)"
    show(f"{heading}\n   {query_text.text_field}", table)


def show(heading: str, table: Table) -> None:
    """Print a table under its heading, or "No rows."."""
    console.print()
    console.print(heading, style="bold")
    console.print(table if table.row_count else "No rows.")


def period(start: datetime, end: datetime) -> str:
    """Return a period as its first day and the day after its last, in UTC."""
    return f"{start.astimezone(UTC):%Y-%m-%d} to {end.astimezone(UTC):%Y-%m-%d}"


if __name__ == "__main__":
    app(prog_name="python -m demo")
