"""Test-suites of small services, run by another pytest on the server of this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.servers import Server

CONFTEST = 'pytest_plugins = ["syntegra_db.testing"]\n'


@pytest.fixture
def run_suite(
    pytester: pytest.Pytester,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., pytest.RunResult]:
    """Return a function that runs a suite with `arguments`, on the server of this run by default; warnings fail it."""
    monkeypatch.setenv("SYNTEGRA_SERVER", server.url.render_as_string(hide_password=False))

    def run(suite: str, *arguments: str, conftest: str = "") -> pytest.RunResult:
        pytester.makeconftest(CONFTEST + conftest)
        pytester.makepyfile(suite)
        return pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider", *arguments)

    return run
