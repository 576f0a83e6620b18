"""Which client programs are used, and what is reported of their failures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from syntegra_db import client_programs, embedded
from syntegra_db.client_programs import ClientProgram, ClientProgramFailed, find_program
from syntegra_db.errors import ClientProgramNotFound, EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def put_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, versions: Sequence[str]) -> list[Path]:
    """Make programs that print `versions` the only ones of PATH and of the distributions."""
    programs = []
    for number, version in enumerate(versions):
        program = folder / str(number) / "psql"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{version}\n", encoding="utf-8")
        program.chmod(0o755)
        programs.append(program)
    monkeypatch.setenv("PATH", ":".join(str(program.parent) for program in programs))
    monkeypatch.setattr(client_programs, "BIN_DIRECTORY_PATTERNS", ())
    return programs


def prints(version: str) -> str:
    return f"echo 'psql (PostgreSQL) {version}'"


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        ([prints("9.6.24"), prints("19.1")], 1),
        ([prints("19.1"), prints("12.3 (Debian 12.3-1)")], 0),
        ([prints("20beta1"), prints("20.4")], 0),
        ([f"exit 1; {prints('30')}", prints("21devel")], 1),
    ],
)
def test_newest_program_is_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, versions: list[str], chosen: int
) -> None:
    programs = put_on_path(monkeypatch, tmp_path, versions)
    assert find_program("psql") == programs[chosen]


@pytest.mark.parametrize("version", [prints("9.6.24"), prints("17.9"), "exit 1"])
def test_older_program_on_path_gives_way_to_embedded_servers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    put_on_path(monkeypatch, tmp_path, [version])
    assert find_program("psql") == embedded.bin_directory() / "psql"


def test_missing_program_names_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def not_installed(_: int) -> Path:
        raise EmbeddedServerError

    put_on_path(monkeypatch, tmp_path, ["exit 1"])
    monkeypatch.setattr(embedded, "bin_directory", not_installed)
    with pytest.raises(ClientProgramNotFound, match=r"psql is not installed\. Install PostgreSQL's client programs"):
        find_program("psql")


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (
            "x: warning: a\nx: detail: b\nx: error: PQgetResult() failed.\nx: detail: ERROR:  a\nx: detail: COPY t\n",
            "PQgetResult() failed; detail: ERROR:  a; detail: COPY t",
        ),
        (
            "x: error: ERROR:  syntax error\nLINE 1: SELEC\n        ^\nx: hint: c\nx: warning: errors ignored: 1\n",
            "ERROR:  syntax error; LINE 1: SELEC; ^; hint: c",
        ),
        ("Killed\n", "Killed"),
        ("", "no reason given"),
    ],
)
def test_failure_of_program_reports_error_with_details(messages: str, reason: str) -> None:
    program = ClientProgram(("sh", "-c", 'printf %s "$0" >&2; exit 1', messages), 18)
    with pytest.raises(ClientProgramFailed) as failed, program.running():
        pass
    assert str(failed.value) == reason
