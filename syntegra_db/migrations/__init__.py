"""Change the schema on a live server: upgrade, downgrade, locks, retries, SQL scripts and `require_head`."""

from syntegra_db.migrations._application import include_name, include_object
from syntegra_db.migrations._blockers import Blocker, read_blockers
from syntegra_db.migrations._commands import downgrade, run_in_transaction, upgrade
from syntegra_db.migrations._commit import confirmed_transaction
from syntegra_db.migrations._config import alembic_config
from syntegra_db.migrations._data_loss import LostRows, describe_data_loss, find_data_loss, log_data_loss
from syntegra_db.migrations._env import run_env
from syntegra_db.migrations._lock import (
    acquire_session_lock,
    current_schema,
    find_lock_holder,
    lock_key,
    migration_lock,
)
from syntegra_db.migrations._manifests import write_manifests
from syntegra_db.migrations._month_partitions import (
    CreatedPartitions,
    create_month_partitions,
    list_month_partitions,
)
from syntegra_db.migrations._options import MigrationOptions, load_migration_options
from syntegra_db.migrations._plan import LockLimits, MigrationPlan, Obstacle, PlannedRevision, plan_migration
from syntegra_db.migrations._protection import protect_tables
from syntegra_db.migrations._require_revision import (
    async_require_head,
    async_require_revision,
    read_required_revision,
    require_head,
    require_revision,
)
from syntegra_db.migrations._retry import retry_in_savepoint, retry_on_lock_error
from syntegra_db.migrations._sql_scripts import render_sql_script, write_sql_scripts
from syntegra_db.migrations._verification import read_existing_drift, verify_result
from syntegra_db.migrations._wait import wait_for_database
from syntegra_db.revisions import current_revision, head_revision

__all__ = [
    "Blocker",
    "CreatedPartitions",
    "LockLimits",
    "LostRows",
    "MigrationOptions",
    "MigrationPlan",
    "Obstacle",
    "PlannedRevision",
    "acquire_session_lock",
    "alembic_config",
    "async_require_head",
    "async_require_revision",
    "confirmed_transaction",
    "create_month_partitions",
    "current_revision",
    "current_schema",
    "describe_data_loss",
    "downgrade",
    "find_data_loss",
    "find_lock_holder",
    "head_revision",
    "include_name",
    "include_object",
    "list_month_partitions",
    "load_migration_options",
    "lock_key",
    "log_data_loss",
    "migration_lock",
    "plan_migration",
    "protect_tables",
    "read_blockers",
    "read_existing_drift",
    "read_required_revision",
    "render_sql_script",
    "require_head",
    "require_revision",
    "retry_in_savepoint",
    "retry_on_lock_error",
    "run_env",
    "run_in_transaction",
    "upgrade",
    "verify_result",
    "wait_for_database",
    "write_manifests",
    "write_sql_scripts",
]
