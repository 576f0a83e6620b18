"""Revisions in steps: operations for tables in use, each step committed and recorded before the next one begins."""

# The imports of these modules add the operations to `op`.
from syntegra_db.migrations.online import _data_operations, _operations  # noqa: F401
from syntegra_db.migrations.online._execution import (
    direction_to_undo,
    migrations_function,
    run_inside_transaction,
    run_online,
)
from syntegra_db.migrations.online._script import StepScript, collect_revision
from syntegra_db.migrations.online._steps import Step

__all__ = [
    "Step",
    "StepScript",
    "collect_revision",
    "direction_to_undo",
    "migrations_function",
    "run_inside_transaction",
    "run_online",
]
