"""Maintain the vector index: health, rebuild, calibration."""

from syntegra_db.vectors._strategy import chosen_point
from syntegra_db.vectors.maintenance._build import BuildProgress
from syntegra_db.vectors.maintenance._defaults import SearchDefaults
from syntegra_db.vectors.maintenance._embeddings import find_embedding
from syntegra_db.vectors.maintenance._health import IndexHealth, check_index_health
from syntegra_db.vectors.maintenance._plot import PLOT_FORMATS, plot_calibrations
from syntegra_db.vectors.maintenance._rebuild import RebuildResult, rebuild
from syntegra_db.vectors.maintenance._spec import RebuildOptions

__all__ = [
    "PLOT_FORMATS",
    "BuildProgress",
    "IndexHealth",
    "RebuildOptions",
    "RebuildResult",
    "SearchDefaults",
    "check_index_health",
    "chosen_point",
    "find_embedding",
    "plot_calibrations",
    "rebuild",
]
