"""What `--json` prints: one dataclass for each command, unless the package has one for its result.

`tools/json_schemas.py` has the list of all, from which `make generate` writes docs/reference/json.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from syntegra_db.backup import RestoredColumns
    from syntegra_db.migrations import CreatedPartitions
    from syntegra_db.vectors.maintenance import IndexHealth


@dataclass(frozen=True)
class MigrationResult:
    """The revision reached, None for none; `pending` are the newer ones of the package, `target` the database."""

    target: str
    revision: str | None
    head: str
    pending: list[str]


@dataclass(frozen=True)
class BackupFile:
    """A backup: its size in bytes, and the database, its revision and the rows by table at the time `made_at`."""

    path: Path
    bytes: int
    database: str
    schema: str
    revision: str
    made_at: datetime
    server_version: str
    rows: int
    tables: dict[str, int]


@dataclass(frozen=True)
class ListedBackup:
    """A file of the directory; `backup` is None if it is `unreadable`: truncated, damaged or not a backup."""

    path: Path
    state: Literal["valid", "damaged", "unreadable"]
    backup: BackupFile | None


@dataclass(frozen=True)
class BackupList:
    """The backups in a directory."""

    directory: Path
    backups: list[ListedBackup]


@dataclass(frozen=True)
class RestoreSummary:
    """The revision of the database, the rows by loaded table, and the tables that kept their rows."""

    target: str
    revision: str
    loaded: dict[str, int]
    kept: list[str]
    columns: list[RestoredColumns]


@dataclass(frozen=True)
class RollbackSummary:
    """The revision reached; without a backup, `backup` and `restore_command` are None."""

    target: str
    revision: str | None
    backup: BackupFile | None
    restore_command: str | None


@dataclass(frozen=True)
class IndexBuild:
    """Whether the vector index of an embedding was built on data, and the number of rows, as far as they are known."""

    trained: bool | None
    rows: int | None


@dataclass(frozen=True)
class IndexHealthList:
    """The vector index of each embedding, or of the one that `--column` names."""

    indexes: list[IndexHealth]


@dataclass(frozen=True)
class MonthPartition:
    """A partition from `lower` until before `upper`, None for no limit; `rows` is an estimate."""

    name: str
    lower: datetime | None
    upper: datetime | None
    is_default: bool
    rows: int


@dataclass(frozen=True)
class PartitionedTable:
    """The partitions of a table, and the months from the current one on without a partition, such as `2026-11`."""

    table: str
    partitions: list[MonthPartition]
    missing_months: list[str]


@dataclass(frozen=True)
class PartitionList:
    """The tables that are partitioned by month."""

    tables: list[PartitionedTable]


@dataclass(frozen=True)
class NewPartitionList:
    """What the command did for each table that is partitioned by month."""

    tables: list[CreatedPartitions]


@dataclass(frozen=True)
class SeparationResult:
    """The prefix of the group roles, those that this run created, and the statements that attach a login to one."""

    prefix: str
    created_roles: list[str]
    attach_statements: list[str]


@dataclass(frozen=True)
class UnboundLogin:
    """The login that is bound to no client any more."""

    login: str


@dataclass(frozen=True)
class LocalServer:
    """The running server; both are None if it was not started, because the settings name another one."""

    version: int | None
    target: str | None


@dataclass(frozen=True)
class StoppedServers:
    """The versions of the servers that were stopped."""

    stopped: list[int]


@dataclass(frozen=True)
class LocalUrl:
    """The URL of the embedded server's database."""

    url: str
