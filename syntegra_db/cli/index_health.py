"""The output of `syntegra-db vectors status` for one index."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from syntegra_db.cli.output import echo, is_unicode, print_table
from syntegra_db.pgvector_support import DEFAULT_RECALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.vectors.maintenance import IndexHealth

BAR_WIDTH = 40


def print_health(health: IndexHealth, seconds: float) -> None:
    """Print the state of an index, its measurement of about `seconds`, its calibration and the advice."""
    from rich.filesize import decimal

    definition = health.definition
    if definition is None:
        echo(f"Index: {health.index} is missing")
    else:
        options = "".join(f", {name} = {value:,}" for name, value in definition.options.items())
        precision = "half" if definition.is_half else "full"
        invalid = "" if definition.is_valid else ", INVALID"
        echo(f"Index: {definition.method}{options}, {precision} precision, {decimal(definition.bytes)}{invalid}")
    if health.rebuild_indexes:
        echo(f"Left by an interrupted or running rebuild: {', '.join(health.rebuild_indexes)}")
    at_build = "unknown" if health.rows_at_build is None else f"{health.rows_at_build:,}"
    echo(f"Rows with an embedding: about {health.rows:,}; when the index was built: {at_build}")
    echo("\n".join(_measurement_lines(health, seconds)))
    _print_calibration(health)
    echo(health.advice)
    if health.command is not None:
        echo(f"  {health.command}")


def _measurement_lines(health: IndexHealth, seconds: float) -> Iterator[str]:
    measurement = health.measurement
    if measurement is None:
        yield f"Not measured: {health.not_measured_reason}"
        return
    exact = measurement.exact_milliseconds
    yield f"Exact search: {exact:.1f} ms"
    if measurement.setting is None:
        yield f"Index scan: not used; for a recall of {DEFAULT_RECALL:g}, `search` is exact"
    elif measurement.recall is None or measurement.milliseconds is None:
        yield f"Index scan: not measured, because {seconds:g} s were too short"
    else:
        ratio = exact / measurement.milliseconds
        yield f"Index scan: {measurement.milliseconds:.1f} ms, {ratio:.1f} times as fast"
        yield (
            f"Recall at ten rows: {measurement.recall:.3f} ±{measurement.margin:.3f} (95 % confidence, "
            f"{measurement.queries} queries), with the setting {measurement.setting} that `search` uses for "
            f"{DEFAULT_RECALL:g}"
        )


def _print_calibration(health: IndexHealth) -> None:
    """Print the recall of each calibrated setting as a bar, with its milliseconds; the chosen setting is marked."""
    from syntegra_db.vectors.maintenance import chosen_point

    if health.calibration is None:
        return
    chosen = chosen_point(health.calibration)
    echo(f"Calibration for a recall of {health.calibration.recall:g}:")
    rows = [
        (
            f"{point.setting:,}",
            f"{point.milliseconds:.2f}",
            f"{point.recall[0]:.3f}",
            _bar(point.recall[0]) + (" chosen" if point == chosen else ""),
        )
        for point in health.calibration.points
    ]
    print_table((health.setting_name, "ms", "recall", ""), rows, right_aligned={health.setting_name, "ms", "recall"})


def _bar(share: float) -> str:
    return ("█" if is_unicode(sys.stdout) else "#") * round(share * BAR_WIDTH)
