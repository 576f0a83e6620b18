"""Backups of the package's rows, and putting them back.

A backup holds rows and their revision; the schema comes from the revisions. See `seal` for the form of the file.
"""

from syntegra_db.backup._dump import create_backup, verify_backup
from syntegra_db.backup._files import DEFAULT_DIRECTORY
from syntegra_db.backup._footer import Backup, BackupMetadata, TableSummary, read_metadata, verify_checksum
from syntegra_db.backup._restore import ExistingRows, RestoreResult, restore
from syntegra_db.backup._rollback import RollbackResult, describe_rollback_loss, rollback
from syntegra_db.backup._session import RowProgress

__all__ = [
    "DEFAULT_DIRECTORY",
    "Backup",
    "BackupMetadata",
    "ExistingRows",
    "RestoreResult",
    "RollbackResult",
    "RowProgress",
    "TableSummary",
    "create_backup",
    "describe_rollback_loss",
    "read_metadata",
    "restore",
    "rollback",
    "verify_backup",
    "verify_checksum",
]
