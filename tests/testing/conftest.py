"""Test-suites of small services, run by another pytest on the server of this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.servers import Server

CONFTEST = 'pytest_plugins = ["syntegra_db.testing"]\n'


@pytest.fixture
def run_suite(
    pytester: pytest.Pytester,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., pytest.RunResult]:
    """Return a function that runs a suite on the server of this run by default; a warning fails it."""
    monkeypatch.setenv("SYNTEGRA_SERVER", server.url.render_as_string(hide_password=False))

    # The plugins of this environment, most of which a suite does not use, take most of the time.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(suite: str, *arguments: str, conftest: str = "", plugins: Sequence[str] = ()) -> pytest.RunResult:
        pytester.makeconftest(CONFTEST + conftest)
        pytester.makepyfile(suite)
        loaded = [argument for plugin in plugins for argument in ("-p", plugin)]
        return pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider", *loaded, *arguments)

    return run
