"""Back up, restore and roll back the rows of the package.

A backup contains rows and their revision; the schema comes from the revisions.
"""

from syntegra_db.backup._dump import create_backup, verify_backup
from syntegra_db.backup._files import DEFAULT_DIRECTORY, SUFFIX
from syntegra_db.backup._footer import Backup, BackupMetadata, TableSummary, read_metadata, verify_checksum
from syntegra_db.backup._full_dump import dump_database
from syntegra_db.backup._restore import ExistingRows, RestoreResult, restore
from syntegra_db.backup._rollback import RollbackResult, describe_rollback_loss, rollback
from syntegra_db.backup._saved_columns import RestoredColumns
from syntegra_db.backup._session import RowProgress, begin_unlimited_transaction, raise_build_memory

__all__ = [
    "DEFAULT_DIRECTORY",
    "SUFFIX",
    "Backup",
    "BackupMetadata",
    "ExistingRows",
    "RestoreResult",
    "RestoredColumns",
    "RollbackResult",
    "RowProgress",
    "TableSummary",
    "begin_unlimited_transaction",
    "create_backup",
    "describe_rollback_loss",
    "dump_database",
    "raise_build_memory",
    "read_metadata",
    "restore",
    "rollback",
    "verify_backup",
    "verify_checksum",
]
