"""The indentation of lists: GitHub nests what begins below the text of an item, MkDocs what has four more spaces."""

from __future__ import annotations

import re

ITEM = re.compile(r"(?:[-*+]|\d+[.)]) +")


def with_nested_lists(markdown: str) -> str:
    """Return the Markdown with four spaces for each list around a line."""
    columns: list[int] = []  # where the text of the open items begins
    fence = ""
    shift = 0
    lines = []
    for line in markdown.split("\n"):
        text = line.lstrip(" ")
        indent = len(line) - len(text)
        if text and not fence:
            while columns and indent < columns[-1]:
                columns.pop()
            shift = 4 * len(columns) - (columns[-1] if columns else 0)
            if item := ITEM.match(text):
                columns.append(indent + len(item[0]))
        if text.startswith("```"):
            fence = "" if fence else text
        lines.append(" " * (indent + shift) + text if text else "")
    return "\n".join(lines)
