"""The pages of the site that are not files of docs/: pages of the root of the checkout, and the API reference."""

from __future__ import annotations

import inspect
import re
from functools import cache
from importlib import import_module

from tools.api_docs import MODULES, first_line, public_names
from tools.sections import ROOT
from tools.site.anchors import slug

CHAPTER = "Adding revision 004"
# The file of the checkout that a page comes from. CONTRIBUTING.md has two: its chapter on revisions is a guide.
SOURCES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "guides/add-a-revision.md": "CONTRIBUTING.md",
    "changes.md": "CHANGELOG.md",
    "security-policy.md": "SECURITY.md",
}
FENCED_OR_HEADING = re.compile(r"^( *)```.*?^\1```|^#(?=#+ )", re.MULTILINE | re.DOTALL)


def source_of(uri: str) -> str:
    """Return the file that the page `uri` comes from, relative to the checkout."""
    return SOURCES.get(uri, f"docs/{uri}")


@cache
def root_page(uri: str) -> str:
    """Return the Markdown of a page of `SOURCES`."""
    text = (ROOT / SOURCES[uri]).read_text(encoding="utf-8")
    if SOURCES[uri] != "CONTRIBUTING.md":
        return text
    before, chapter, after = split_chapter(text)
    link = f"[{CHAPTER}](CONTRIBUTING.md#{slug(CHAPTER)}) is a guide of this site.\n\n"
    return f"{before}{link}{after}" if uri == "contributing.md" else promote(chapter)


def split_chapter(text: str) -> tuple[str, str, str]:
    """Return the text before the chapter on revisions, the chapter, and the text after it.

    Raises:
        ValueError: There is no such chapter.
    """
    before, heading, rest = text.partition(f"## {CHAPTER}\n")
    if not heading:
        raise ValueError(f"CONTRIBUTING.md has no chapter {CHAPTER!r}: write its title into tools/site/pages.py.")
    chapter, following, after = rest.partition("\n## ")
    return before, heading + chapter + "\n", following.lstrip() + after


def promote(text: str) -> str:
    """Return `text` with each heading one level higher; a comment in a block of code is no heading."""
    return FENCED_OR_HEADING.sub(lambda match: "" if match[0] == "#" else match[0], text)


def reference_uri(module: str) -> str:
    """Return the page of a module in the API reference."""
    return f"reference/{module}.md"


def reference_pages() -> dict[str, str]:
    """Return the Markdown of the API reference by page: one directive of mkdocstrings for each public name."""
    return {reference_uri(module): reference_page(module) for module in MODULES}


def reference_page(module: str) -> str:
    """Return the page of one module."""
    code = import_module(f"syntegra_db.{module}")
    directives = (f"::: {code.__name__}.{name}\n" for name, _ in public_names(code))
    return "\n".join((f"# `{code.__name__}`\n", f"{first_line(inspect.getdoc(code))}\n", *directives))
