"""Phrases of messages that several packages print."""


def rows(count: int) -> str:
    """Return a number of rows, such as `1 row` or `2,000 rows`."""
    return f"{count:,} row{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time as one number, such as `40 s` or `12 min`."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"  # noqa: PLR2004  two minutes
