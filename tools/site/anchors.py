"""The anchors of headings, as GitHub and the site make them."""

from __future__ import annotations

import re

HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCED = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    """Return the anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


def anchors(markdown: str) -> set[str]:
    """Return the anchors of a page."""
    return {slug(heading) for heading in HEADING.findall(FENCED.sub("", markdown))}
