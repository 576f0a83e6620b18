"""`syntegra-db vectors`: the health of the vector index, and its rebuild."""

from __future__ import annotations

import logging
import re
import threading
import time
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import typer

from syntegra_db import wording
from syntegra_db.cli import environment
from syntegra_db.cli.arguments import Json, require_finite
from syntegra_db.cli.index_health import print_health
from syntegra_db.cli.output import echo, print_json
from syntegra_db.interruption import report_if_interrupted
from syntegra_db.pgvector_support import DEFAULT_RECALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from syntegra_db.vectors.maintenance import BuildProgress, RebuildResult, SearchDefaults

logger = logging.getLogger(__name__)

app = typer.Typer(help="Measure and rebuild the vector index of similarity searches.", no_args_is_help=True)


# Declared again, because syntegra_db.vectors imports SQLAlchemy.
class Method(StrEnum):
    """The methods of a vector index."""

    _value_: Literal["ivfflat", "hnsw"]
    IVFFLAT = "ivfflat"
    HNSW = "hnsw"


REPEAT_SECONDS = 30.0
MEMORY = re.compile(r"([1-9][0-9]*) *(kB|MB|GB)")
BYTES = {"kB": 1024, "MB": 1024**2, "GB": 1024**3}
MIN_MEMORY = BYTES["MB"]
MAX_MEMORY = 2047 * BYTES["GB"]


@app.command(epilog=environment.DATABASE)
def status(
    seconds: Annotated[
        float, typer.Option(min=1, max=86_400, callback=require_finite, help="Approximate duration of the measurement.")
    ] = 10,
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Embedding, such as embedding or text_summary.embedding.  [default: all of them]"
        ),
    ] = None,
    *,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the calibration as FILE.png or FILE.svg: recall against milliseconds. It needs the extra plot.",
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """Measure recall and speed of the index with stored rows, and recommend whether to rebuild it."""
    from syntegra_db.cli.results import IndexHealthList
    from syntegra_db.vectors import declared_embeddings
    from syntegra_db.vectors.maintenance import PLOT_FORMATS, check_index_health, plot_calibrations

    if plot is not None and plot.suffix not in PLOT_FORMATS:
        raise typer.BadParameter(f"--plot must be a file that ends with {' or '.join(PLOT_FORMATS)}")
    names = [str(embedding) for embedding in declared_embeddings()]
    columns = names if column is None else [_find_column(column)]
    engine = _engine("syntegra_db")
    reports = [check_index_health(engine, seconds, embedding=name) for name in columns]
    if plot is not None:
        plot_calibrations(reports, plot)
    if json_output:
        print_json(IndexHealthList(reports))
        return
    for number, health in enumerate(reports):
        if len(names) > 1:
            echo(("\n" if number else "") + health.column)
        print_health(health, seconds)


def _find_column(name: str | None) -> str:
    """Return the embedding that `--column` names, as TABLE.COLUMN."""
    from syntegra_db.errors import RebuildFailed
    from syntegra_db.vectors.maintenance import find_embedding

    try:
        return str(find_embedding(name))
    except RebuildFailed as error:
        raise typer.BadParameter(str(error), param_hint="--column") from None


def _engine(application_name: str) -> Engine:
    from sqlalchemy import NullPool

    from syntegra_db.database import create_engine

    return create_engine(application_name=application_name, poolclass=NullPool)


@app.command(epilog=environment.DATABASE_AND_LOCKS)
def rebuild(  # noqa: PLR0913  one parameter per option
    lists: Annotated[
        int | None, typer.Option(min=1, max=32_768, help="Number of lists of an ivfflat index.  [default: 2√rows]")
    ] = None,
    method: Annotated[Method | None, typer.Option(help="[default: the current method, or ivfflat]")] = None,
    recall: Annotated[
        float, typer.Option(min=0.01, max=1, callback=require_finite, help="Recall to calibrate for.")
    ] = DEFAULT_RECALL,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Memory limit of the build, such as 512MB.  [default: 25 % of effective_cache_size]"
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, max=1024, help="Number of parallel workers.")] = 2,
    *,
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Embedding, such as embedding or text_summary.embedding.  [default: the only one]"
        ),
    ] = None,
    half: Annotated[
        bool | None,
        typer.Option(
            "--half/--full",
            help="Half precision: 50 % of the size (hnsw: 67 %).  [default: the current precision, or full]",
        ),
    ] = None,
    set_defaults: Annotated[
        bool,
        typer.Option(
            "--set-defaults",
            help="Store the measured setting in the database, for searches by plain SQL; needs its owner.",
        ),
    ] = False,
    json_output: Json = False,
) -> None:
    """Rebuild and calibrate the index while services read and write."""
    from syntegra_db.vectors.maintenance import RebuildOptions
    from syntegra_db.vectors.maintenance import rebuild as rebuild_index

    if lists is not None and method == Method.HNSW:
        raise typer.BadParameter("--lists is for ivfflat; an hnsw index has no lists")
    options = RebuildOptions(method.value if method else None, lists, half, _bytes(memory), workers)
    embedding = _find_column(column)
    unchanged = report_if_interrupted(lambda: "The index is unchanged.", unless_reported=True)
    with _build_progress() as show, unchanged:
        result = rebuild_index(
            _engine("syntegra_db rebuild"),
            options,
            embedding=embedding,
            recall=recall,
            set_defaults=set_defaults,
            on_progress=show,
        )
    if json_output:
        print_json(result)
        return
    _print_result(result)
    _print_defaults(result.defaults, is_requested=set_defaults)


def _bytes(memory: str | None) -> int | None:
    if memory is None:
        return None
    size = MEMORY.fullmatch(memory)
    if size is None:
        raise typer.BadParameter("--memory must be a whole number of kB, MB or GB, such as 512MB")
    memory_bytes = int(size[1]) * BYTES[size[2]]
    if not MIN_MEMORY <= memory_bytes <= MAX_MEMORY:
        raise typer.BadParameter("--memory must be between 1MB and 2047GB, as PostgreSQL's maintenance_work_mem")
    return memory_bytes


def _print_result(result: RebuildResult) -> None:
    from rich.filesize import decimal

    from syntegra_db.vectors import EXACT_SCAN_MAX_ROWS, SETTING_NAMES

    before = f", {decimal(result.bytes_before)} before" if result.bytes_before else ""
    size = f"{decimal(result.bytes_after)}{before}"
    echo(f"Rebuilt: an {result.spec} on {wording.rows(result.rows)}, {size}, in {result.seconds:.0f} s")
    exact, selected = result.calibration.exact_milliseconds, result.selected
    if selected is None:
        recall = result.calibration.recall
        echo(f"No setting reaches a recall of {recall:g}; a `search` for it is exact, {exact:.1f} ms")
        return
    reached = f"Recall {selected.recall[0]:.3f} with {SETTING_NAMES[result.spec.method]} = {selected.setting}"
    if result.rows <= EXACT_SCAN_MAX_ROWS:
        echo(f"{reached}; up to {EXACT_SCAN_MAX_ROWS:,} rows, a `search` is exact and does not use the index")
        return
    gain = f"{exact / selected.milliseconds:.1f} times as fast as an exact search"
    echo(f"{reached}: {selected.milliseconds:.1f} ms, {gain}")


def _print_defaults(defaults: SearchDefaults | None, *, is_requested: bool) -> None:
    if defaults is None:
        if is_requested:
            echo("The settings of the database are unchanged.")
        return
    values = " and ".join(f"{name} = {value}" for name, value in defaults.settings.items())
    if defaults.is_stored:
        echo(f"New sessions of this database search with {values}, also by plain SQL. To undo this, run:")
        statements = defaults.undo
    else:
        echo(f"Plain SQL searches with the server's settings. For {values} in new sessions of this database, run:")
        statements = defaults.statements
    for statement in statements:
        echo(f"  {statement}")


@contextmanager
def _build_progress() -> Iterator[Callable[[BuildProgress], None]]:
    """Show the server's name of the phase: as a bar at a terminal, as log lines elsewhere."""
    from syntegra_db.cli.progress import progress_bar

    with progress_bar("Reading the index") as show:
        if show is None:
            with _PhaseLogger() as phases:
                yield phases.show
        else:
            yield lambda progress: show(
                progress.phase + "".join(f"; waits for {blocker}" for blocker in progress.blocked_by),
                progress.done,
                progress.total or None,
            )


class _PhaseLogger:
    """Log each phase, and each session that a phase waits for, once; repeat the latest line every 30 s."""

    def __init__(self) -> None:
        self._logged: set[str] = set()
        self._latest = ""
        self._ended = threading.Event()
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        threading.Thread(target=self._repeat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def show(self, progress: BuildProgress) -> None:
        """Log what is new in `progress`."""
        self._log_once(progress.phase, progress.phase)
        for blocker in progress.blocked_by:
            self._log_once(f"{progress.phase} {blocker.pid}", f"{progress.phase}: {blocker}")

    def _log_once(self, key: str, line: str) -> None:
        self._latest = line
        if key not in self._logged:
            self._logged.add(key)
            logger.info("%s", line)

    def _repeat(self) -> None:
        while not self._ended.wait(REPEAT_SECONDS):
            logger.info("%s: still running after %.0f s", self._latest, time.monotonic() - self._started)
