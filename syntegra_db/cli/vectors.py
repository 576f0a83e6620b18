"""The index that searches by meaning use: what it is worth, and building it anew."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from syntegra_db.vectors.maintenance._build import BuildProgress
    from syntegra_db.vectors.maintenance._health import IndexHealth
    from syntegra_db.vectors.maintenance._rebuild import RebuildResult

logger = logging.getLogger(__name__)

app = typer.Typer(help="The index that searches by meaning use: measure it, rebuild it.", no_args_is_help=True)

# Not syntegra_db.vectors._index.Method, for which SQLAlchemy would be imported.
Method = Literal["ivfflat", "hnsw"]
MEMORY = re.compile(r"([1-9][0-9]*) *(kB|MB|GB)")
BYTES = {"kB": 1024, "MB": 1024**2, "GB": 1024**3}


@app.command()
def status(
    seconds: Annotated[float, typer.Option(min=1, max=86_400, help="About so long it may take.")] = 10,
    *,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Measure what the index finds and how fast, on stored rows, and say whether to rebuild it."""
    from syntegra_db.cli.output import print_json
    from syntegra_db.settings import database_url
    from syntegra_db.vectors.maintenance._health import check_index_health

    condition = check_index_health(database_url(), seconds)
    if json_output:
        print_json(condition)
    else:
        _print_condition(condition, seconds)


def _print_condition(condition: IndexHealth, seconds: float) -> None:
    from rich.filesize import decimal

    shape = condition.shape
    if shape is None:
        typer.echo("There is no index idx_text_summary_embedding.")
    else:
        options = "".join(f", {name} = {value:,}" for name, value in shape.options.items())
        precision = "half" if shape.is_half else "full"
        invalid = "" if shape.is_valid else ", INVALID"
        typer.echo(f"Index: {shape.method}{options}, {precision} precision, {decimal(shape.bytes)}{invalid}")
    if condition.leftovers:
        typer.echo(f"Left by a rebuild that was interrupted, or is running: {', '.join(condition.leftovers)}")
    built_on = {None: "unknown", 0: "none, it came with the empty table"}
    trained = built_on.get(condition.built_on) or f"{condition.built_on:,}"
    typer.echo(f"Rows with an embedding: about {condition.rows:,}; when the index was built: {trained}")
    typer.echo("\n".join(_measurement_lines(condition, seconds)))
    typer.echo(condition.advice)
    if condition.command is not None:
        typer.echo(f"  {condition.command}")


def _measurement_lines(condition: IndexHealth, seconds: float) -> Iterator[str]:
    measured = condition.measured
    if measured is None:
        yield f"Not measured: {condition.not_measured_reason}"
        return
    exact = measured.exact_milliseconds
    yield f"A search that compares all rows: {exact:.1f} ms"
    if measured.setting is None:
        yield "A search through the index: none; at a recall of 0.95, `search` compares all rows"
        return
    if measured.recall is None or measured.milliseconds is None:
        yield f"A search through the index: not measured, {seconds:g} s were too short"
        return
    ratio = exact / measured.milliseconds
    yield f"A search through the index: {measured.milliseconds:.1f} ms, {ratio:.1f} times as fast"
    yield (
        f"Recall at ten rows: {measured.recall:.3f}, give or take {measured.margin:.3f} (95 % confidence, "
        f"{measured.queries} queries), with the setting {measured.setting} that `search` takes for 0.95"
    )


@app.command()
def rebuild(  # noqa: PLR0913  an option each
    lists: Annotated[
        int | None, typer.Option(min=1, max=32_768, help="Lists, and so an ivfflat index.  [default: 2√rows]")
    ] = None,
    method: Annotated[Method | None, typer.Option(help="[default: as it stands, else ivfflat]")] = None,
    recall: Annotated[float, typer.Option(min=0.01, max=1, help="Recall to find the setting for.")] = 0.95,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Most memory to build with, such as 512MB.  [default: enough]")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, max=1024, help="Parallel workers beside the session that builds.")] = 2,
    *,
    half: Annotated[
        bool | None,
        typer.Option(
            "--half/--full", help="Half precision: half the size, two thirds with hnsw.  [default: as it stands]"
        ),
    ] = None,
) -> None:
    """Build the index anew beside the old one, while services read and write, and find the setting that it needs."""
    from syntegra_db.settings import database_url
    from syntegra_db.vectors.maintenance._rebuild import RebuildOptions
    from syntegra_db.vectors.maintenance._rebuild import rebuild as rebuild_index

    if lists is not None and method == "hnsw":
        raise typer.BadParameter("--lists is for ivfflat; an hnsw index has none")
    wish = RebuildOptions(method, lists, half, _bytes(memory), workers)
    with _build_progress() as show:
        done = rebuild_index(database_url(), wish, recall=recall, on_progress=show)
    _print_rebuilt(done)


def _bytes(memory: str | None) -> int | None:
    if memory is None:
        return None
    given = MEMORY.fullmatch(memory)
    if given is None:
        raise typer.BadParameter("--memory takes a whole number of kB, MB or GB, such as 512MB")
    return int(given[1]) * BYTES[given[2]]


def _print_rebuilt(done: RebuildResult) -> None:
    from rich.filesize import decimal

    from syntegra_db.vectors._index import SETTING_NAMES

    before = f", {decimal(done.bytes_before)} before" if done.bytes_before else ""
    size = f"{decimal(done.bytes_after)}{before}"
    typer.echo(f"Rebuilt: an {done.kind} on {done.rows:,} rows, {size}, in {done.seconds:.0f} s")
    exact = done.tuning.exact_milliseconds
    if done.selected is None:
        recall = f"a recall of {done.tuning.recall:g}"
        typer.echo(f"It does not reach {recall}: for that, `search` compares all rows, {exact:.1f} ms")
        return
    name = SETTING_NAMES[done.kind.method]
    typer.echo(
        f"Recall {done.selected.recall[0]:.3f} with {name} = {done.selected.setting}: "
        f"{done.selected.milliseconds:.1f} ms, {exact / done.selected.milliseconds:.1f} times as fast as comparing "
        f"all rows"
    )


@contextmanager
def _build_progress() -> Iterator[Callable[[BuildProgress], None]]:
    """Show the server's name of the phase: as a bar at a terminal, as log lines elsewhere."""
    from syntegra_db.cli.progress import progress_bar

    with progress_bar("Reading the index") as show:
        if show is None:
            yield _PhaseLogger().show
        else:
            yield lambda progress: show(
                progress.phase + "".join(f"; waits for {blocker}" for blocker in progress.blocked_by),
                progress.done,
                progress.total or None,
            )


class _PhaseLogger:
    """Logs each phase once, and each session that is waited for."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def show(self, progress: BuildProgress) -> None:
        """Log what is new in `progress`."""
        self._say(progress.phase, progress.phase)
        for blocker in progress.blocked_by:
            self._say(f"{progress.phase} {blocker.pid}", f"{progress.phase}: {blocker}")

    def _say(self, what: str, line: str) -> None:
        if what not in self._said:
            self._said.add(what)
            logger.info("%s", line)
