"""Tables and plot of benchmarks.search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.recall import Point


@dataclass(frozen=True)
class Result:
    """The measurements of one index.

    `points` is the sweep, `best` its smallest setting that reaches the recall, `found` the setting that `search` used.
    `overhead` is the time of `search` beyond its statement, in milliseconds. `clients` has, by client, the results of
    `search` and of the planner's default plan.
    """

    name: str
    seconds_to_build: float
    size: str
    points: Sequence[Point]
    best: Point | None
    found: Point | None
    exact_per_second: float
    searched: Point
    overhead: float | None
    clients: dict[int, tuple[Point, Point]]


def show(results: Sequence[Result], rows: int) -> None:
    """Print the tables as Markdown."""
    print(f"\n{rows:,} rows\n")
    heads = ("Index", "Built in", "Size", "Recall of `search`", "Searches/s", "of exact", "Found", "Best", "Found/best")
    print(f"| {' | '.join(heads)} |\n| --- |{' --: |' * (len(heads) - 1)}")
    for result in results:
        ratio = result.searched.per_second / result.exact_per_second
        print(
            f"| {result.name} | {result.seconds_to_build:.0f} s | {result.size} | {result.searched.recall:.3f} "
            f"| {result.searched.per_second:.0f} | {ratio:.1f} | {_setting(result.found)} | {_setting(result.best)} "
            f"| {_speed_ratio(result.found, result.best)} |"
        )
    exact = ", ".join(f"{result.exact_per_second:.1f}" for result in results)
    print(f"\nExact searches per second, measured with each index: {exact}.")
    overheads = ", ".join(f"{result.name} {result.overhead:.2f}" for result in results if result.overhead is not None)
    print(f"\nOverhead of `search` compared with its statement, in milliseconds: {overheads}.")
    print("\nSweeps with psycopg only, as setting: recall / searches per second:\n")
    for result in results:
        points = ", ".join(f"{point.setting}: {point.recall:.3f} / {point.per_second:.0f}" for point in result.points)
        print(f"- {result.name}: {points}")
    _show_clients(results)


def _show_clients(results: Sequence[Result]) -> None:
    print("\nOne client: recall and milliseconds of `search` / of the planner's default plan\n")
    known = list(results[0].clients)
    print("| Index | " + " | ".join(f"client {client}" for client in known) + " |")
    print("| --- |" + " --: |" * len(known))
    for result in results:
        cells = (f"{_client(search)} / {_client(default)}" for search, default in result.clients.values())
        print(f"| {result.name} | " + " | ".join(cells) + " |")


def _client(point: Point) -> str:
    return f"{point.recall:.3f} {1000 / point.per_second:.1f} ms"


def _setting(point: Point | None) -> str:
    return "exact scan" if point is None else f"{point.setting} ({point.recall:.3f}, {point.per_second:.0f}/s)"


def _speed_ratio(found: Point | None, best: Point | None) -> str:
    return "" if found is None or best is None else f"{found.per_second / best.per_second:.2f}"


def draw(results: Sequence[Result], rows: int, file: Path) -> None:
    """Plot recall against searches per second, one line per index, and write a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for result in results:
        (line,) = axes.plot(
            [point.recall for point in result.points],
            [point.per_second for point in result.points],
            marker=".",
            label=result.name,
        )
        axes.plot(result.searched.recall, result.searched.per_second, marker="*", markersize=14, color=line.get_color())
    exact = max(result.exact_per_second for result in results)
    axes.axhline(exact, linestyle="--", color="grey", label="exact scan")
    axes.set(
        xlabel="Recall of the ten nearest",
        ylabel="Searches per second, one client",
        yscale="log",
        title=f"{rows:,} rows; star: search(recall=0.95)",
    )
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=110)
