"""The documentation site: it builds strictly, and works in a browser without any other host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from support.browsers import chromium, console_errors, requested_hosts, served
from support.commands import ROOT
from tools.api_docs import MODULES, public_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

pytestmark = pytest.mark.slow  # the server of the tests makes no difference

HOST = "127.0.0.1"
MARKDOWN = re.compile(r"```|\]\([\w./#-]+\)|^\s*\|.*\|\s*$|\| --- \||^(?:#+|[-*]|\d+\.) ", re.MULTILINE)


class Page(HTMLParser):
    """The links, the anchors, and the text outside of code of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.text = ""
        self.open_code = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.open_code += tag in {"code", "pre", "script", "style"}
        for name, value in attributes:
            if name in {"href", "src"} and value:
                self.links.append(value)
            if name in {"id", "name"} and value:
                self.anchors.add(value)

    def handle_endtag(self, tag: str) -> None:
        self.open_code -= tag in {"code", "pre", "script", "style"}

    def handle_data(self, data: str) -> None:
        self.text += "`code`" if self.open_code else data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    """The pages by their path; 404.html is shown at any address, so its links begin with the root."""
    found = {str(path.relative_to(site)): Page(path) for path in sorted(site.rglob("*.html"))}
    del found["404.html"]
    return found


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with served(site) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as browser:
        yield browser


def test_links_of_all_pages_lead_to_files_and_anchors(site: Path, pages: dict[str, Page]) -> None:
    broken = []
    for name, page in pages.items():
        for link in page.links:
            target = urlsplit(urljoin(f"http://{HOST}/{name}", link))
            assert (target.scheme, target.hostname is not None) in {("http", True), ("https", True)}, link
            if target.hostname != HOST:
                continue
            path = unquote(target.path).removeprefix("/")
            fragment = unquote(target.fragment)
            if not (site / path).is_file() or (fragment and fragment not in pages[path].anchors):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_pages_show_no_markdown(pages: dict[str, Page]) -> None:
    assert {name: found for name, page in pages.items() if (found := MARKDOWN.findall(page.text))} == {}


@pytest.mark.parametrize("module", MODULES)
def test_reference_has_exactly_the_public_names(module: str, pages: dict[str, Page]) -> None:
    code = import_module(f"syntegra_db.{module}")
    prefix = f"{code.__name__}."
    shown = {name for name in pages[f"reference/{module}.html"].anchors if name.startswith(prefix)}
    names = {f"{prefix}{name}" for name, _ in public_names(code)}
    assert names <= shown
    assert all(any(name == public or name.startswith(f"{public}.") for public in names) for name in shown)


@pytest.mark.browser
def test_navigation_opens_every_page_without_errors_or_other_hosts(
    browser: Chrome, address: str, pages: dict[str, Page]
) -> None:
    browser.get(f"{address}/index.html")
    found = browser.find_elements(By.CSS_SELECTOR, ".md-nav--primary a.md-nav__link[href]")
    links = {str(link.get_attribute("href")).partition("#")[0] for link in found}
    assert {link.removeprefix(f"{address}/") for link in links} == pages.keys()
    for link in sorted(links):
        browser.get(link)
        assert browser.find_elements(By.CSS_SELECTOR, "article h1"), link
        assert console_errors(browser) == [], link
    assert requested_hosts(browser) == {HOST}


@pytest.mark.browser
@pytest.mark.parametrize("page", ["architecture.html", "schema.html"])
def test_diagram_is_drawn_without_other_hosts(page: str, browser: Chrome, address: str) -> None:
    browser.get(f"{address}/{page}")
    waiting = WebDriverWait(browser, 30)
    drawn = waiting.until(lambda browser: browser.find_elements(By.CSS_SELECTOR, "div.mermaid"))
    waiting.until(lambda _: drawn[0].size["height"] > 200)
    assert console_errors(browser) == []
    assert requested_hosts(browser) == {HOST}


@pytest.mark.browser
@pytest.mark.parametrize(
    ("start", "term", "page"),
    [
        ("index.html", "upsert_rows", "guides/load-and-search.html"),
        ("guides/operate.html", "SYNTEGRA_LOCK_TIMEOUT", "guides/operate.html"),
        ("index.html", "partition_by_month", "adr/0012-partitions-by-month.html"),
        ("es/migraciones.html", "restauración", "es/migraciones.html"),
        ("index.html", "vectors rebuild", "commands.html"),
    ],
)
def test_search_finds_term_and_opens_its_page(start: str, term: str, page: str, browser: Chrome, address: str) -> None:
    browser.get(f"{address}/{start}")
    waiting = WebDriverWait(browser, 20)
    field = browser.find_element(By.CSS_SELECTOR, "input.md-search__input")
    browser.execute_script("document.querySelector('#__search').click()")
    waiting.until(lambda _: field.is_displayed())
    field.send_keys(term, Keys.SPACE)
    results = f".md-search-result__link[href*='{page}']"
    [result, *_] = waiting.until(lambda browser: browser.find_elements(By.CSS_SELECTOR, results))
    browser.get(str(result.get_attribute("href")))
    assert term.casefold() in str(browser.find_element(By.TAG_NAME, "article").text).casefold()
    assert console_errors(browser) == []
    assert requested_hosts(browser) == {HOST}
