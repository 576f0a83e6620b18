"""Sample revisions in a checkout, and what `make revisions` reports about each of them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

from support.revisions import HEAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.checkouts import Checkout

PARTS = ("tests", "tools", "pyproject.toml", "CHANGELOG.md", ".squawk.toml")
ALIKE = '("kpi_summary", "kpi_name", "name")'
# The upgrade, downgrade and phase of both revisions of a renamed column.
RENAME = {
    "expansion": (
        f"""
        op.add_column("kpi_summary", sa.Column("name", sa.String(255)))
        op.keep_alike{ALIKE}
        op.set_not_null_online("kpi_summary", "name")
        """,
        f'op.stop_keeping_alike{ALIKE}\nop.drop_column("kpi_summary", "name")',
        "expand",
    ),
    "contraction": (
        f'op.stop_keeping_alike{ALIKE}\nop.drop_column("kpi_summary", "kpi_name")',
        f"""
        op.add_column("kpi_summary", sa.Column("kpi_name", sa.String(255)))
        op.keep_alike{ALIKE}
        op.set_not_null_online("kpi_summary", "kpi_name")
        """,
        "contract",
    ),
}


class Fault(NamedTuple):
    """The bodies and the phase of a revision, and what is reported."""

    upgrade: str
    reported: str
    downgrade: str = 'op.execute("SELECT 1")'
    phase: str | None = "expand"


def write_revisions(checkout: Checkout, revisions: Mapping[str, tuple[str, str, str | None]]) -> dict[str, str]:
    """Write a revision for each name, each in another release, with the schema of the head; return their ids."""
    names: dict[str, str] = {}
    before, releases = HEAD, ""
    for number, (name, (upgrade, downgrade, phase)) in enumerate(revisions.items(), int(HEAD) + 1):
        revision = f"{number:03}"
        checkout.add_revision(revision, upgrade, downgrade, before=before, phase=phase)
        shutil.copy(checkout.manifests / f"{HEAD}.json", checkout.manifests / f"{revision}.json")
        releases = f"\n## 1.{number}.0\n\n### Added\n\n- Revision {revision}: A sample.\n{releases}"
        names[name] = before = revision
    with (checkout.folder / "CHANGELOG.md").open("a", encoding="utf-8") as changelog:
        changelog.write(releases)
    return names


def lint_faults(checkout: Checkout, faults: Mapping[str, Fault]) -> dict[str, str]:
    """Write a revision for each fault, and return what is reported about each."""
    revisions = write_revisions(
        checkout, {name: (fault.upgrade, fault.downgrade, fault.phase) for name, fault in faults.items()}
    )
    lines = checkout.succeed("tools.revision_lint", status=1).splitlines()
    return {name: "\n".join(line for line in lines if f"/{revision}_" in line) for name, revision in revisions.items()}
