"""What a revision wants: its operations, collected without a database, and grouped into steps."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from alembic import op
from alembic.operations import Operations
from alembic.operations.ops import CreateTableOp

from syntegra_db.migrations.online._registry import OnlineOperation
from syntegra_db.migrations.online._steps import AutocommitStep, TransactionStep, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from alembic.operations.ops import MigrateOperation
    from alembic.runtime.migration import MigrationContext

    from syntegra_db.migrations.online._steps import Step


class _ConnectionNeeded(Exception):
    """The revision uses the connection, so what it does is known only while it runs."""


class CollectedSteps(NamedTuple):
    """The steps of a revision; without an online operation or an autocommit block, they are one transaction.

    `operations` are what the revision calls, in its order.
    """

    steps: list[Step]
    is_divided: bool
    operations: list[MigrateOperation]


def collect_steps(context: MigrationContext, function: Callable[[], None]) -> CollectedSteps | None:
    """Return the steps of `function`, a revision's `upgrade` or `downgrade`.

    It is None for a revision that uses the connection itself (`op.get_bind()`, `op.batch_alter_table()`), because what
    it does is known only while it runs.
    """
    collector = _Collector(context)
    try:
        with collector.installed():
            function()
    except _ConnectionNeeded:
        return None
    return CollectedSteps(collector.steps(), collector.is_divided, collector.operations)


class _Collector:
    """Stand in for Alembic's operations, and keep what is invoked instead of doing it."""

    def __init__(self, context: MigrationContext) -> None:
        self._context = context
        self._in_autocommit = False
        self._groups: list[Step | list[MigrateOperation]] = []
        self.operations: list[MigrateOperation] = []
        self.is_divided = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let `alembic.op` collect inside the block."""
        # Alembic has no public way to replace its operations.
        replaced = vars(op).get("_proxy")
        operations = Operations(self._context)
        vars(operations).update(
            invoke=self._collect,
            get_context=lambda: _CollectedContext(self),
            **dict.fromkeys(("get_bind", "batch_alter_table", "run_async"), _need_connection),
        )
        operations._install_proxy()  # noqa: SLF001
        try:
            yield
        finally:
            operations._remove_proxy()  # noqa: SLF001
            if replaced is not None:
                replaced._install_proxy()  # noqa: SLF001

    def _collect(self, operation: MigrateOperation) -> Any:
        self.operations.append(operation)
        if isinstance(operation, OnlineOperation):
            self.is_divided = True
            self._groups += operation.steps()
        elif self._in_autocommit:
            self._groups.append(AutocommitStep(operation, describe(operation)))
        elif self._groups and isinstance(self._groups[-1], list):
            self._groups[-1].append(operation)
        else:
            self._groups.append([operation])
        # The only operation with a result that a revision uses.
        return operation.to_table(self._context) if isinstance(operation, CreateTableOp) else None

    @contextmanager
    def autocommit_block(self) -> Iterator[None]:
        """Collect each operation of the block as a separate step."""
        self.is_divided = self._in_autocommit = True
        try:
            yield
        finally:
            self._in_autocommit = False

    def steps(self) -> list[Step]:
        """Return what was collected; consecutive operations of Alembic are one step."""
        return [_transaction_step(group) if isinstance(group, list) else group for group in self._groups]


class _CollectedContext:
    """The part of Alembic's migration context that a revision can use before it runs."""

    def __init__(self, collector: _Collector) -> None:
        self.autocommit_block = collector.autocommit_block

    def __getattr__(self, name: str) -> Any:
        raise _ConnectionNeeded


def _need_connection(*_: object, **__: object) -> Any:
    raise _ConnectionNeeded


def _transaction_step(operations: Sequence[MigrateOperation]) -> TransactionStep:
    return TransactionStep(tuple(operations), ", ".join(map(describe, operations)), is_collected=True)
