"""Differences between the Markdown of GitHub and that of MkDocs: nested lists, and a `|` in code in a table."""

from __future__ import annotations

import re

ITEM = re.compile(r"(?:[-*+]|\d+[.)]) +")
CODE = re.compile(r"`[^`]+`")


def for_mkdocs(markdown: str) -> str:
    """Return Markdown for MkDocs: four spaces for each list around a line, and an empty line after nested blocks."""
    columns: list[int] = []  # where the text of the open items begins
    fence = ""
    shift = 0
    has_blocks = False
    lines: list[str] = []
    for line in markdown.split("\n"):
        text = line.lstrip(" ")
        indent = len(line) - len(text)
        if text and not fence:
            while columns and indent < columns[-1]:
                columns.pop()
            shift = 4 * len(columns) - (columns[-1] if columns else 0)
            if item := ITEM.match(text):
                if has_blocks and lines[-1]:
                    lines.append("")
                columns.append(indent + len(item[0]))
                has_blocks = False
        if text.startswith("```"):
            fence = "" if fence else text
        has_blocks = has_blocks or not text
        lines.append(" " * (indent + shift) + (text if fence else table_row(text)) if text else "")
    return "\n".join(lines)


def table_row(text: str) -> str:
    """Return a line; in the code of a row of a table, MkDocs shows the backslash before a `|`."""
    return CODE.sub(lambda code: code[0].replace("\\|", "|"), text) if text.startswith("|") else text
