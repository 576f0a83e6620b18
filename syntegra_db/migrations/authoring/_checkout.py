"""The files of a checkout that a new revision needs besides its own: a test module and an entry of the changelog."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from syntegra_db.compatibility import EXPAND, phase_of
from syntegra_db.errors import RevisionError
from syntegra_db.revision_files import script_location

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TESTS = "tests/revisions"
CHANGELOG = "CHANGELOG.md"
UNRELEASED = "unreleased"
TEST_MODULE = '''\
"""Revision {revision}: {message}."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.sample_rows import load_rows, row_digests
{imports}
    from revisions.conftest import Revision

REVISION = "{revision}"
{lost}

def test_upgrade_downgrade_upgrade_restores_same_schema(revision: Revision) -> None:
    before = revision.schema()
    revision.upgrade()
    after = revision.schema()
    revision.downgrade()
    assert revision.schema() == before
    revision.upgrade()
    assert revision.schema() == after != before


def test_upgrade_and_downgrade_keep_rows(revision: Revision) -> None:
    load_rows(revision.database, 700)
    before = row_digests(revision.database{without})
    revision.upgrade()
    assert [rows for rows, *_ in row_digests(revision.database).values()] == [rows for rows, *_ in before.values()]
    revision.downgrade()
    assert row_digests(revision.database{without}) == before
'''
LOST = """\
# Columns whose values the upgrade deletes.
LOST = {columns}
"""
IMPORTS = "\nif TYPE_CHECKING:"
EXPANSION_IMPORTS = """\
from support.services import run_service_before

if TYPE_CHECKING:
    from pathlib import Path
"""
EXPANSION_TEST = """

def test_service_of_revision_before_works_after_upgrade(revision: Revision, tmp_path: Path) -> None:
    revision.upgrade()
    run_service_before(REVISION, revision.database, tmp_path)
"""


def require_checkout() -> Path:
    """Return the folder of the checkout that this package is part of.

    Raises:
        RevisionError: it is an installed package, or the tools of a developer are not installed.
    """
    root = script_location().parent
    if not all((root / name).exists() for name in ("pyproject.toml", TESTS, CHANGELOG)):
        raise RevisionError(
            "A new revision is written in a checkout of syntegra_db, and this package was installed without one. "
            "Clone the repository, and run there: make revision NAME='…'"
        )
    if find_spec("ruff") is None:
        raise RevisionError("ruff is not installed, and it formats the new revision. Install it: make .venv")
    return root


def require_no_tests(root: Path, revision: str) -> None:
    """Raise `RevisionError` if a test module of a revision that was deleted is in the way of the next one."""
    for path in (root / TESTS).glob(f"test_{revision}_*.py"):
        raise RevisionError(
            f"{path.relative_to(root)} has tests of a revision {revision} that does not exist. Delete it, or move the "
            "tests that you want to keep; then run this again."
        )


def write_test_module(root: Path, revision: str, slug: str, message: str, lost: Sequence[str] = ()) -> Path:
    """Write the tests that every revision passes, and the one of an expansion.

    `lost` are columns, such as `clusters.centroid`, whose values the upgrade deletes.
    """
    path = root / TESTS / f"test_{revision}_{slug}.py"
    is_expansion = phase_of(revision) == EXPAND
    text = TEST_MODULE.format(
        revision=revision,
        message=message,
        imports=EXPANSION_IMPORTS if is_expansion else IMPORTS,
        lost=LOST.format(columns=[*lost]) if lost else "",
        without=", without=LOST" if lost else "",
    )
    path.write_text(text + EXPANSION_TEST if is_expansion else text, encoding="utf-8")
    return path


def add_to_changelog(root: Path, revision: str, message: str) -> Path:
    """Add an entry at the end of what the unreleased version adds, or replace the entry of the same revision."""
    path = root / CHANGELOG
    entry = f"- Revision {revision}: {message}."
    path.write_text(with_entry(path.read_text(encoding="utf-8"), revision, entry), encoding="utf-8")
    return path


def releases_of_revisions(root: Path) -> dict[str, str]:
    """Return the version under which the changelog has each revision with an entry, as `add_to_changelog` writes it."""
    _, *versions = (root / CHANGELOG).read_text(encoding="utf-8").split("\n## ")
    return {
        revision: version.partition("\n")[0].strip()
        for version in versions
        for revision in re.findall(r"^- Revision (\d{3}):", version, re.MULTILINE)
    }


def with_entry(changelog: str, revision: str, entry: str) -> str:
    """Return `changelog` with `entry` under Added of its unreleased version, which is new after a release."""
    introduction, *versions = changelog.split("\n## ")
    if not versions or UNRELEASED not in versions[0].partition("\n")[0].lower():
        return "\n## ".join([introduction, f"Unreleased\n\n### Added\n\n{entry}\n", *versions])
    if (old := re.search(rf"^- Revision {revision}:.*(?:\n  .*)*", versions[0], re.MULTILINE)) is not None:
        versions[0] = versions[0].replace(old[0], entry)
        return "\n## ".join([introduction, *versions])
    title, *sections = versions[0].split("\n### ")
    added = next((number for number, section in enumerate(sections) if section.startswith("Added\n")), None)
    if added is None:
        sections.insert(0, f"Added\n\n{entry}\n")
    else:
        text = sections[added].rstrip("\n")
        end = sections[added][len(text) :]
        sections[added] = f"{text}\n{entry}{end}"
    return "\n## ".join([introduction, "\n### ".join([title, *sections]), *versions[1:]])


def format_files(root: Path, *paths: Path) -> str:
    """Format `paths` with the rules of the checkout, and return what ruff reports for the author to correct."""
    ruff = [sys.executable, "-m", "ruff"]
    names = [str(path.relative_to(root)) for path in paths]
    checked = ["check", "--fix", "--quiet", "--output-format", "concise"]
    for arguments in (checked, ["format", "--quiet"], checked):
        command = [*ruff, *arguments, *names]
        result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603  names of new files
    return result.stdout + result.stderr
