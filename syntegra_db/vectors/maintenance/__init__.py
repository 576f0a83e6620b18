"""Maintain the vector index: health, rebuild, calibration."""

from syntegra_db.vectors.maintenance._build import BuildProgress
from syntegra_db.vectors.maintenance._health import IndexHealth, check_index_health
from syntegra_db.vectors.maintenance._rebuild import RebuildOptions, RebuildResult, rebuild

__all__ = ["BuildProgress", "IndexHealth", "RebuildOptions", "RebuildResult", "check_index_health", "rebuild"]
