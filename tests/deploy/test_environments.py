"""The environments of the Makefile: one directory for operators and developers, and the lowest versions elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from support.commands import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("Makefile", "pyproject.toml", "constraints.txt", "constraints-operator.txt", "constraints-lowest.txt")
# They record their arguments; the real ones need a package index.
PYTHON = """#!/bin/sh
echo "python $*" >>calls
for folder; do :; done
case " $* " in *" --clear "*) rm -rf "$folder" ;; esac
mkdir -p "$folder/bin"
for program in pip syntegra-db pytest; do
  printf '#!/bin/sh\\necho "%s $*" >>calls\\n[ ! -e fail ]\\n' $program >"$folder/bin/$program"
  chmod +x "$folder/bin/$program"
done
"""
CREATED, EXTENDED = "python -m venv --clear .venv", "python -m venv .venv"


class Checkout:
    """A Makefile whose Python and pip record their arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in FILES:
            shutil.copy(ROOT / name, folder)
        python = folder / "python"
        python.write_text(PYTHON, encoding="utf-8")
        python.chmod(0o755)

    def make(self, target: str, status: int = 0) -> list[str]:
        """Run `make` and return the recorded calls: of pip, the requirements."""
        calls = self.folder / "calls"
        calls.write_text("", encoding="utf-8")
        environment = {"PATH": os.environ["PATH"], "PYTHON": "./python", "VENV": ".venv"}
        result = subprocess.run(
            ["make", target], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == status, result.stderr
        lines = calls.read_text(encoding="utf-8").splitlines()
        return [line.rpartition(" ")[2] if line.startswith("pip ") else line for line in lines]

    def edit(self, name: str) -> None:
        """Change a file after everything else."""
        later = time.time() + 2
        os.utime(self.folder / name, (later, later))

    def age(self) -> None:
        """Let all files be older than those that are written from now on."""
        earlier = time.time() - 10
        for path in self.folder.rglob("*"):
            if path.is_file():
                os.utime(path, (earlier, earlier))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    checkout = Checkout(tmp_path)
    checkout.age()
    return checkout


def test_operator_target_installs_no_development_tools(checkout: Checkout) -> None:
    assert checkout.make("status") == [CREATED, "constraints-operator.txt", ".", "syntegra-db status"]
    assert checkout.make("verify") == ["syntegra-db verify"]


def test_developer_target_extends_the_environment_of_an_operator(checkout: Checkout) -> None:
    checkout.make("status")
    kept = checkout.folder / ".venv/program-of-the-running-server"
    kept.touch()
    assert checkout.make(".venv") == ["constraints.txt", "."]
    assert kept.exists()
    assert checkout.make("status") == ["syntegra-db status"]
    assert checkout.make(".venv") == []


def test_developer_target_creates_the_environment_in_one_step(checkout: Checkout) -> None:
    assert checkout.make(".venv") == [CREATED, "constraints.txt", "."]
    assert checkout.make("status") == ["syntegra-db status"]


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints-operator.txt"])
def test_operator_target_does_not_clear_the_environment_of_a_developer(checkout: Checkout, changed: str) -> None:
    checkout.make(".venv")
    tool = checkout.folder / ".venv/tool"
    tool.touch()
    checkout.age()
    checkout.edit(changed)
    calls = checkout.make("status")
    assert calls == [EXTENDED, "constraints-operator.txt", ".", "syntegra-db status"]
    assert tool.exists()


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
@pytest.mark.parametrize("before", [(), ("status",)], ids=["developer", "operator first"])
def test_developer_target_creates_the_environment_again_after_a_change(
    checkout: Checkout, changed: str, before: tuple[str, ...]
) -> None:
    checkout.make(".venv")
    checkout.age()
    checkout.edit(changed)
    for target in before:
        checkout.make(target)
    assert checkout.make(".venv") == [CREATED, "constraints.txt", "."]


def test_operator_target_after_a_change_creates_the_environment_of_an_operator_again(checkout: Checkout) -> None:
    checkout.make("status")
    checkout.age()
    checkout.edit("pyproject.toml")
    assert checkout.make("status")[:2] == [CREATED, "constraints-operator.txt"]


def test_failed_extension_keeps_the_environment_of_the_operator(checkout: Checkout) -> None:
    checkout.make("status")
    (checkout.folder / "fail").touch()
    assert checkout.make(".venv", status=2) == ["constraints.txt"]
    (checkout.folder / "fail").unlink()
    assert checkout.make("status") == ["syntegra-db status"]
    assert checkout.make(".venv") == ["constraints.txt", "."]


def test_lowest_versions_have_another_environment(checkout: Checkout) -> None:
    calls = checkout.make("test-lowest")
    assert calls[:3] == ["python -m venv --clear .venv-lowest", "constraints-lowest.txt", "."]
    assert calls[3].startswith("pytest ")
    assert not (checkout.folder / ".venv").exists()
