"""A headless Chromium, and a server of the pages that it opens."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Print nothing: the browser's console has the failures."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Yield the address of a server of the files in `folder`, without a slash at its end."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def chromium() -> Iterator[Chrome]:
    """Yield a headless Chromium that records its console and its requests."""
    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1400,1000",
    ):
        options.add_argument(argument)
    options.add_argument("--window-size=1400,1000")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Chrome(options, ChromeService(shutil.which("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()


def console_errors(browser: Chrome) -> list[str]:
    """Return the errors on the console since the last call."""
    return [entry["message"] for entry in entries(browser, "browser") if entry["level"] == "SEVERE"]


def requested_hosts(browser: Chrome) -> set[str]:
    """Return the hosts of all requests since the last call."""
    messages = (json.loads(entry["message"])["message"] for entry in entries(browser, "performance"))
    urls = (m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent")
    return {host for url in urls if (host := urlsplit(url).hostname)}


def entries(browser: Chrome, log: str) -> list[dict[str, Any]]:
    """Return the entries of a log since the last call."""
    return list(browser.get_log(log))  # type: ignore[no-untyped-call]  # of selenium
