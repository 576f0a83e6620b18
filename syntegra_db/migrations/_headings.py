"""The headings of a revision's docstring: why, its locks, its duration, what to do after a failure, the downgrade."""

from __future__ import annotations

import re

HEADINGS = ("Why", "Locks", "Duration", "If it fails", "Downgrade")
HEADING_LINES = re.compile(
    rf"^(?P<heading>{'|'.join(HEADINGS)}):(?P<text>.*(?:\n(?!\n|\"\"\"|[A-Z][\w ]*:).*)*)", re.MULTILINE
)


def read_headings(text: str) -> dict[str, str]:
    """Return the texts under the headings of a docstring."""
    return {match["heading"]: " ".join(match["text"].split()) for match in HEADING_LINES.finditer(text)}
