"""The life of the vector index: health, rebuild, calibration."""
