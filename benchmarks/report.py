"""The tables and the plot of benchmarks.search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.recall import Point


@dataclass(frozen=True)
class Result:
    """What one index gave.

    `points` is the full sweep, `best` the least setting of it that reaches the recall, `found` the one that `search`
    used, measured alike; `added` is what `search` takes beyond its own statement, in milliseconds. `clients` has, by
    client, what `search` gave and what the planner left alone did.
    """

    name: str
    seconds_to_build: float
    size: str
    points: Sequence[Point]
    best: Point | None
    found: Point | None
    exact_per_second: float
    searched: Point
    added: float | None
    clients: dict[int, tuple[Point, Point]]


def show(results: Sequence[Result], rows: int) -> None:
    """Print the tables as Markdown."""
    print(f"\n{rows:,} rows\n")
    heads = ("Index", "Built in", "Size", "Recall of `search`", "Searches/s", "of exact", "Found", "Best", "Found/best")
    print(f"| {' | '.join(heads)} |\n| --- |{' --: |' * (len(heads) - 1)}")
    for one in results:
        ratio = one.searched.per_second / one.exact_per_second
        print(
            f"| {one.name} | {one.seconds_to_build:.0f} s | {one.size} | {one.searched.recall:.3f} "
            f"| {one.searched.per_second:.0f} | {ratio:.1f} | {_setting(one.found)} | {_setting(one.best)} "
            f"| {_share(one.found, one.best)} |"
        )
    exact = ", ".join(f"{one.exact_per_second:.1f}" for one in results)
    print(f"\nExact searches a second, beside each: {exact}.")
    added = ", ".join(f"{one.name} {one.added:.2f}" for one in results if one.added is not None)
    print(f"\nWhat `search` adds to its statement, in milliseconds: {added}.")
    print("\nThe sweeps, setting: recall / searches a second, by psycopg alone:\n")
    for one in results:
        points = ", ".join(f"{point.setting}: {point.recall:.3f} / {point.per_second:.0f}" for point in one.points)
        print(f"- {one.name}: {points}")
    _show_clients(results)


def _show_clients(results: Sequence[Result]) -> None:
    print("\nOne client: recall and milliseconds of `search` / of the planner left alone\n")
    known = list(results[0].clients)
    print("| Index | " + " | ".join(f"client {client}" for client in known) + " |")
    print("| --- |" + " --: |" * len(known))
    for one in results:
        cells = (f"{_client(mine)} / {_client(theirs)}" for mine, theirs in one.clients.values())
        print(f"| {one.name} | " + " | ".join(cells) + " |")


def _client(point: Point) -> str:
    return f"{point.recall:.3f} {1000 / point.per_second:.1f} ms"


def _setting(point: Point | None) -> str:
    return "all rows" if point is None else f"{point.setting} ({point.recall:.3f}, {point.per_second:.0f}/s)"


def _share(found: Point | None, best: Point | None) -> str:
    return "" if found is None or best is None else f"{found.per_second / best.per_second:.2f}"


def draw(results: Sequence[Result], rows: int, file: Path) -> None:
    """Draw recall against searches a second, a line an index, and write a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for one in results:
        (line,) = axes.plot(
            [point.recall for point in one.points],
            [point.per_second for point in one.points],
            marker=".",
            label=one.name,
        )
        axes.plot(one.searched.recall, one.searched.per_second, marker="*", markersize=14, color=line.get_color())
    exact = max(one.exact_per_second for one in results)
    axes.axhline(exact, linestyle="--", color="grey", label="all rows compared")
    axes.set(
        xlabel="Recall of the ten nearest",
        ylabel="Searches a second, one client",
        yscale="log",
        title=f"{rows:,} rows; a star is search(recall=0.95)",
    )
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=110)
