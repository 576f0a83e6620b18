"""The installed schema, the declared schema of each revision, and the drift between them."""

from syntegra_db.catalog._closest import closest_revision
from syntegra_db.catalog._data_loss import DataLoss, data_losses
from syntegra_db.catalog._drift import is_accepted, unversioned_objects, verify
from syntegra_db.catalog._findings import DriftReport, Finding
from syntegra_db.catalog._introspection import (
    LiveCatalog,
    existing_tables,
    introspect,
    require_current_schema,
    short_lock_timeout,
)
from syntegra_db.catalog._manifest import (
    MANIFESTS,
    declared_sequences,
    format_manifest,
    load_manifest,
    managed_tables,
    managed_types,
    tables_with_vectors,
    written_manifests,
)
from syntegra_db.catalog._other_owners import who_may_change_tables
from syntegra_db.catalog._other_schemas import (
    SCHEMAS_WITH_TABLES,
    SELECT_REVISION,
    declared_columns,
    later_schemas_with_tables,
    require_no_tables_elsewhere,
    require_usable_revision,
)
from syntegra_db.catalog._own_names import (
    CHANGED_ELSEWHERE,
    NAMES_ELSEWHERE,
    OBJECTS_ELSEWHERE,
    ObjectsElsewhere,
    declared_names,
    require_own_names,
)
from syntegra_db.catalog._partitions import (
    CREATE_COMMAND,
    FIRST_MOMENT,
    LAST_MOMENT,
    YEARS_END,
    Month,
    MonthPartitions,
    Partition,
    month_column,
    month_name_expression,
    read_month_partitions,
    tables_by_month,
)
from syntegra_db.catalog._protection import find_unrecorded_tenancy
from syntegra_db.catalog._schema import Column, Schema, Table
from syntegra_db.catalog._status import DatabaseStatus, read_status
from syntegra_db.catalog._visible_rows import require_all_rows

__all__ = [
    "CHANGED_ELSEWHERE",
    "CREATE_COMMAND",
    "FIRST_MOMENT",
    "LAST_MOMENT",
    "MANIFESTS",
    "NAMES_ELSEWHERE",
    "OBJECTS_ELSEWHERE",
    "SCHEMAS_WITH_TABLES",
    "SELECT_REVISION",
    "YEARS_END",
    "Column",
    "DataLoss",
    "DatabaseStatus",
    "DriftReport",
    "Finding",
    "LiveCatalog",
    "Month",
    "MonthPartitions",
    "ObjectsElsewhere",
    "Partition",
    "Schema",
    "Table",
    "closest_revision",
    "data_losses",
    "declared_columns",
    "declared_names",
    "declared_sequences",
    "existing_tables",
    "find_unrecorded_tenancy",
    "format_manifest",
    "introspect",
    "is_accepted",
    "later_schemas_with_tables",
    "load_manifest",
    "managed_tables",
    "managed_types",
    "month_column",
    "month_name_expression",
    "read_month_partitions",
    "read_status",
    "require_all_rows",
    "require_current_schema",
    "require_no_tables_elsewhere",
    "require_own_names",
    "require_usable_revision",
    "short_lock_timeout",
    "tables_by_month",
    "tables_with_vectors",
    "unversioned_objects",
    "verify",
    "who_may_change_tables",
    "written_manifests",
]
