"""Backups of the package's rows, and putting them back.

A backup holds rows and their revision; the schema comes from the revisions. See `seal` for the form of the file.
"""

from syntegra_db.backup.dumping import create_backup, prove
from syntegra_db.backup.files import FOLDER
from syntegra_db.backup.restoring import Occupied, Restored, restore
from syntegra_db.backup.rolling_back import RolledBack, cost, rollback
from syntegra_db.backup.seal import Backup, Contents, TableRows, read_seal, read_whole
from syntegra_db.backup.sessions import Progress

__all__ = [
    "FOLDER",
    "Backup",
    "Contents",
    "Occupied",
    "Progress",
    "Restored",
    "RolledBack",
    "TableRows",
    "cost",
    "create_backup",
    "prove",
    "read_seal",
    "read_whole",
    "restore",
    "rollback",
]
