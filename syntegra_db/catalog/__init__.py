"""The installed schema, the declared schema of each revision, and the drift between them."""

from syntegra_db.catalog._closest import closest_revision
from syntegra_db.catalog._data_loss import DataLoss, data_losses
from syntegra_db.catalog._drift import is_accepted, unversioned_objects, verify
from syntegra_db.catalog._findings import DriftReport, Finding
from syntegra_db.catalog._introspection import LiveCatalog, existing_tables, introspect, require_current_schema
from syntegra_db.catalog._manifest import (
    MANIFESTS,
    format_manifest,
    load_manifest,
    managed_tables,
    managed_types,
)
from syntegra_db.catalog._other_schemas import (
    SCHEMAS_WITH_TABLES,
    SELECT_REVISION,
    declared_columns,
    later_schemas_with_tables,
    require_no_tables_elsewhere,
    require_usable_revision,
)
from syntegra_db.catalog._schema import Column, Schema, Table
from syntegra_db.catalog._status import DatabaseStatus, read_status

__all__ = [
    "MANIFESTS",
    "SCHEMAS_WITH_TABLES",
    "SELECT_REVISION",
    "Column",
    "DataLoss",
    "DatabaseStatus",
    "DriftReport",
    "Finding",
    "LiveCatalog",
    "Schema",
    "Table",
    "closest_revision",
    "data_losses",
    "declared_columns",
    "existing_tables",
    "format_manifest",
    "introspect",
    "is_accepted",
    "later_schemas_with_tables",
    "load_manifest",
    "managed_tables",
    "managed_types",
    "read_status",
    "require_current_schema",
    "require_no_tables_elsewhere",
    "require_usable_revision",
    "unversioned_objects",
    "verify",
]
