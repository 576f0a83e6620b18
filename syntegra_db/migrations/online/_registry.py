"""What all online operations have in common, and how they are added to Alembic's `op`."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import TYPE_CHECKING, TypeVar

from alembic.operations import Operations
from alembic.operations.ops import MigrateOperation

from syntegra_db.errors import MigrationFailed
from syntegra_db.migrations.online._steps import TransactionStep, ValidationStep
from syntegra_db.sql import MAX_NAME_BYTES, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from syntegra_db.migrations.online._steps import Step

Kind = TypeVar("Kind", bound="type[OnlineOperation]")


class OnlineOperation(MigrateOperation):
    """An operation that is done in steps, each of which is committed before the next one begins."""

    @abstractmethod
    def steps(self) -> Sequence[Step]:
        """Return the steps in their order."""


def _reject(operations: Operations, operation: OnlineOperation) -> None:
    """Raise `MigrationFailed`, because Alembic itself runs this revision: `_execution` runs those with steps."""
    if operations.migration_context.as_sql:
        raise MigrationFailed(
            f"{type(operation).__name__} is done in several transactions, which Alembic cannot write. "
            "`syntegra-db sql` prints the file for psql."
        )
    raise MigrationFailed(
        f"{type(operation).__name__} is done in several transactions, but its revision uses the connection itself "
        "(op.get_bind() or op.batch_alter_table()), so it cannot be divided. Use other operations, such as op.execute."
    )


def register(name: str) -> Callable[[Kind], Kind]:
    """Return a decorator that adds an operation to `op` under `name`."""

    def add(kind: Kind) -> Kind:
        Operations.register_operation(name)(kind)
        Operations.implementation_for(kind)(_reject)
        return kind

    return add


def constraint_steps(
    name: str, table: str, add: MigrateOperation, find_rows: str, cleanup: tuple[MigrateOperation, ...] = ()
) -> list[Step]:
    """Return the addition of a constraint that is NOT VALID, and its validation; see `Step` and `ValidationStep`."""
    validate = f"ALTER TABLE {quote(table)} VALIDATE CONSTRAINT {quote(name)}"
    return [
        TransactionStep((add,), f"add constraint {name} for new rows", cleanup=cleanup),
        ValidationStep(validate, f"check the rows of {table} for {name}", find_rows),
    ]


def as_text(condition: str) -> str:
    """Return `condition` for SQLAlchemy, which takes a name after a colon for a parameter."""
    return re.sub(r"(?<![:\\]):(?=\w)", r"\\:", condition)


def find_violations(table: str, condition: str) -> str:
    """Return the statement that finds the rows of `table` for which the CHECK `condition` is false."""
    return f"SELECT * FROM {quote(table)} WHERE NOT ({condition});"  # noqa: S608  printed


def object_name(*parts: str) -> str:
    """Return a name of an object from `parts`, not longer than PostgreSQL's limit of 63 bytes."""
    return "_".join(parts).encode()[:MAX_NAME_BYTES].decode(errors="ignore")
