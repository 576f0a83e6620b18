"""The SQL of `templates/`, and queries of the package inside it."""

from __future__ import annotations

from pathlib import Path

TEMPLATES = Path(__file__).with_name("templates")


def read_template(name: str) -> str:
    """Return the text of a template, such as `guard`."""
    return (TEMPLATES / f"{name}.sql").read_text(encoding="utf-8")


def as_block(query: str) -> str:
    """Return `query`, indented as it is written, without the line breaks around it."""
    return query.strip("\n").rstrip()
