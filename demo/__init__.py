"""A small data set in all seven tables, and three questions answered with it: `python -m demo`."""
