"""Revisions in steps: operations for tables in use, each step committed and recorded before the next one begins."""

# The imports of these modules add the operations to `op`.
from syntegra_db.migrations.online import _data_operations, _operations, _partitions  # noqa: F401
from syntegra_db.migrations.online._backfill import PLACEHOLDER, BackfillStep, require_values
from syntegra_db.migrations.online._collection import CollectedSteps
from syntegra_db.migrations.online._data_operations import AlikeColumns, KeepAlikeOp, StopKeepingAlikeOp
from syntegra_db.migrations.online._execution import (
    direction_to_undo,
    migrations_function,
    run_inside_transaction,
    run_online,
)
from syntegra_db.migrations.online._registry import OnlineOperation
from syntegra_db.migrations.online._script import (
    PROTECT,
    StepScript,
    collect_functions,
    collect_revision,
    collect_upgrade,
    require_own_objects,
)
from syntegra_db.migrations.online._steps import (
    CONCURRENTLY,
    AutocommitStep,
    Step,
    TransactionStep,
    ValidationStep,
    describe,
)

__all__ = [
    "CONCURRENTLY",
    "PLACEHOLDER",
    "PROTECT",
    "AlikeColumns",
    "AutocommitStep",
    "BackfillStep",
    "CollectedSteps",
    "KeepAlikeOp",
    "OnlineOperation",
    "Step",
    "StepScript",
    "StopKeepingAlikeOp",
    "TransactionStep",
    "ValidationStep",
    "collect_functions",
    "collect_revision",
    "collect_upgrade",
    "describe",
    "direction_to_undo",
    "migrations_function",
    "require_own_objects",
    "require_values",
    "run_inside_transaction",
    "run_online",
]
