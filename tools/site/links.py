"""The links between the pages: a page of the site can be at another place than its file in the checkout."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from urllib.parse import unquote

from tools.sections import ROOT
from tools.site.anchors import anchors
from tools.site.pages import SOURCES, root_page, source_of

CODE_OR_LINK = re.compile(
    r"^(?P<indent> *)```.*?^(?P=indent)```"  # a block of code
    r"|(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)"
    r"|\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>(?!https?:|mailto:)[^)\s]+)\)",
    re.MULTILINE | re.DOTALL,
)


def site_links(markdown: str, uri: str) -> str:
    """Return the Markdown of the page `uri` with links to pages; of a link to another file, only the text is left.

    A link to a file that does not exist stays: MkDocs reports it.
    """

    def replaced(match: re.Match[str]) -> str:
        if match["target"] is None:
            return match[0]
        path, _, fragment = match["target"].partition("#")
        target = page_of(path, fragment, uri)
        if target is None:
            return str(match["text"])
        relative = posixpath.relpath(target, posixpath.dirname(uri) or ".") if path else ""
        return f"[{match['text']}]({relative}{'#' if fragment else ''}{fragment})"

    return CODE_OR_LINK.sub(replaced, markdown)


def page_of(path: str, fragment: str, uri: str) -> str | None:
    """Return the page or file of the site that a link on the page `uri` leads to, or None if it is not on the site."""
    source = source_of(uri)
    linked = posixpath.normpath(posixpath.join(posixpath.dirname(source), unquote(path))) if path else source
    pages = [page for page, file in SOURCES.items() if file == linked]
    if pages:
        return next((page for page in pages if fragment in anchors(root_page(page))), pages[0])
    file = ROOT / linked
    if file.is_dir() and (file / "README.md").is_file():
        file /= "README.md"
    if file.exists() and not file.is_relative_to(ROOT / "docs"):
        return None
    return str(Path(posixpath.relpath(file, ROOT / "docs")))
