"""The hooks of mkdocs.yml: the pages that are not in docs/, their places in the navigation, links and diagrams."""

from __future__ import annotations

import posixpath
import re
from importlib.metadata import distribution
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

from tools.api_docs import MODULES
from tools.sections import ROOT
from tools.site.dialect import for_mkdocs
from tools.site.links import site_links
from tools.site.pages import SOURCES, reference_pages, reference_uri, root_page

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

# The theme would load Mermaid from another host.
MERMAID = "assets/mermaid.min.js"
NAME_IN_TABLE = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
MODULE_HEADING = re.compile(r"^## `syntegra_db\.([\w.]+)`$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> None:
    """Complete the sections of the navigation whose pages follow from the code and from files."""
    section(config.nav, "Python").extend(reference_uri(module) for module in MODULES)
    section(config.nav, "Decisions").extend(pages("adr/[0-9]*.md"))
    guides = section(config.nav, "Guides")
    guides.extend(page for page in pages("guides/*.md") if page not in guides)


def pages(pattern: str) -> list[str]:
    """Return the pages of docs/ with such a path, in the order of their names."""
    return sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").glob(pattern))


def section(navigation: Any, title: str) -> list[Any]:
    """Return the items of the section `title`, to which more can be added.

    Raises:
        ValueError: The navigation has no such section.
    """
    waiting = list(navigation)
    while waiting:
        item = waiting.pop()
        for name, content in item.items() if isinstance(item, dict) else ():
            if isinstance(content, list):
                if name == title:
                    return content
                waiting += content
    raise ValueError(f"The navigation in mkdocs.yml has no section {title!r}.")


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that are not in docs/, and the program that draws the diagrams."""
    added = {uri: root_page(uri) for uri in SOURCES} | reference_pages()
    for uri, markdown in added.items():
        files.append(File.generated(config, uri, content=markdown))
    mermaid = str(distribution("mermaidx").locate_file("mermaidx/assets/mermaid.js"))
    files.append(File.generated(config, MERMAID, abs_src_path=mermaid))


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Nest lists as GitHub does, and let links and the names in the table of public names lead to the site."""
    uri = page.file.src_uri
    return for_mkdocs(site_links(link_names(markdown) if uri == "api.md" else markdown, uri))


def link_names(markdown: str) -> str:
    """Return the page of public names with a link from each name to its reference."""
    before, *modules = MODULE_HEADING.split(markdown)
    sections = (
        f"## `syntegra_db.{module}`" + NAME_IN_TABLE.sub(rf"| [`\1`][syntegra_db.{module}.\1] |", text)
        for module, text in zip(modules[::2], modules[1::2], strict=True)
    )
    return "".join((before, *sections))


def on_page_content(html: str, page: Page, **_: object) -> str:
    """Load the program that draws diagrams, on the pages that have one, before the theme would."""
    if 'class="mermaid"' not in html:
        return html
    script = posixpath.relpath(MERMAID, posixpath.dirname(page.file.dest_uri) or ".")
    return f'<script src="{script}"></script>\n{html}'
