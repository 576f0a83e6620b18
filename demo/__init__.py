"""A small data set for all seven tables, and three example queries: `python -m demo`."""
