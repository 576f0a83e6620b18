"""What a server really holds, compared with what its revision should."""

from syntegra_db.catalog._drift import verify
from syntegra_db.catalog._findings import DriftReport, Finding
from syntegra_db.catalog._introspection import LiveCatalog, introspect
from syntegra_db.catalog._manifest import load_manifest, write_manifests
from syntegra_db.catalog._schema import Schema

__all__ = [
    "DriftReport",
    "Finding",
    "LiveCatalog",
    "Schema",
    "introspect",
    "load_manifest",
    "verify",
    "write_manifests",
]
