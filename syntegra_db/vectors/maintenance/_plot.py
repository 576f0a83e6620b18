"""A picture of the stored calibrations: recall against milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.errors import OutputFailed
from syntegra_db.vectors._strategy import chosen_point

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from syntegra_db.vectors._index import Calibration
    from syntegra_db.vectors.maintenance._health import IndexHealth

PLOT_FORMATS = (".png", ".svg")
"""The suffixes of the files that `plot_calibrations` writes."""
INCHES = (7.0, 4.2)
DOTS_PER_INCH = 150


def plot_calibrations(reports: Sequence[IndexHealth], path: Path) -> None:
    """Draw recall at ten rows against milliseconds for each calibrated index, and write it to `path`.

    Args:
        reports: the indexes; those without a current calibration are left out.
        path: a PNG or SVG file, by its suffix; an existing one is replaced.

    Raises:
        OutputFailed: no index is calibrated, matplotlib is not installed, or the file cannot be written.
    """
    calibrated = [(report, report.calibration) for report in reports if report.calibration is not None]
    if not calibrated:
        names = ", ".join(report.index for report in reports)
        raise OutputFailed(f"{names} has no current calibration to plot. Run `syntegra-db vectors rebuild` first.")
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise OutputFailed("The plot needs matplotlib. Install it: pip install 'syntegra-db[plot]'") from error
    width, height = INCHES
    figure = Figure(figsize=(width, height * len(calibrated)), layout="constrained")
    for position, (report, calibration) in enumerate(calibrated, start=1):
        _draw(figure.add_subplot(len(calibrated), 1, position), report, calibration)
    # Text remains text, and the ids do not change from one run to the next.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "syntegra_db"}):
        try:
            figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Date": None} if path.suffix == ".svg" else None)
        except OSError as error:
            raise OutputFailed(f"Cannot write {path}: {error.strerror or error}.") from error


def _draw(axes: Axes, report: IndexHealth, calibration: Calibration) -> None:
    setting = report.setting_name
    milliseconds = [point.milliseconds for point in calibration.points]
    recalls = [point.recall[0] for point in calibration.points]
    axes.plot(milliseconds, recalls, marker="o", markersize=4, color="tab:blue", label=f"index, by {setting}")
    axes.axvline(calibration.exact_milliseconds, color="tab:gray", linestyle="--", label="exact search")
    axes.axhline(calibration.recall, color="tab:gray", linestyle=":", label=f"requested recall {calibration.recall:g}")
    chosen = chosen_point(calibration)
    if chosen is not None:
        label = f"chosen: {setting} = {chosen.setting}"
        axes.plot([chosen.milliseconds], [chosen.recall[0]], "D", markersize=9, color="tab:orange", label=label)
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds for ten rows")
    axes.set_ylabel("recall at ten rows")
    axes.set_title(f"{report.column}: {report.index}, {calibration.rows:,} rows")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(loc="lower right")
