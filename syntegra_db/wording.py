"""Phrases of messages that several packages print."""


def rows(count: int) -> str:
    """Return a number of rows, such as `1 row` or `2,000 rows`."""
    return f"{count:,} row{'' if count == 1 else 's'}"
