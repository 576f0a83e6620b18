"""What a server really holds, compared with what its revision should."""

from syntegra_db.catalog.findings import Finding, Report
from syntegra_db.catalog.manifest import load_manifest, write_manifests
from syntegra_db.catalog.shape import Shape
from syntegra_db.catalog.snapshot import Snapshot, snapshot
from syntegra_db.catalog.verify import examine, verify

__all__ = [
    "Finding",
    "Report",
    "Shape",
    "Snapshot",
    "examine",
    "load_manifest",
    "snapshot",
    "verify",
    "write_manifests",
]
