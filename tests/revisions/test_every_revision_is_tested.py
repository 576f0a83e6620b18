"""Each revision has a module of tests in this folder."""

from __future__ import annotations

from pathlib import Path

from syntegra_db.revisions import script_directory


def test_every_revision_has_own_test_module() -> None:
    revisions = {script.revision for script in script_directory().walk_revisions()}
    tested = {file.stem.split("_")[1] for file in Path(__file__).parent.glob("test_[0-9]*.py")}
    assert tested == revisions
