"""examples/application: its tests pass with this checkout, on the server of this run."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from support.commands import ROOT

if TYPE_CHECKING:
    from support.servers import Server


def test_example_application_passes_its_tests(server: Server) -> None:
    environment = os.environ | {"SYNTEGRA_SERVER": server.url.render_as_string(hide_password=False)}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT / "examples/application",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout
