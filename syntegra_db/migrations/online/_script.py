"""Render the steps of a revision as statements for psql."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from syntegra_db.catalog import CHANGED_ELSEWHERE
from syntegra_db.migrations._templates import as_block, read_template
from syntegra_db.migrations.online._collection import collect_steps
from syntegra_db.recorded_steps import STEP_TABLE
from syntegra_db.sql import literal, qualify_calls, quote

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from alembic.operations.ops import MigrateOperation

    from syntegra_db.migrations.online._collection import CollectedSteps
    from syntegra_db.migrations.online._steps import Step
    from syntegra_db.recorded_steps import Direction

BLOCK = """\
SELECT is_finished FROM {step_table} WHERE step = {number} \\gset
\\if :is_finished
\\else
\\echo {title}
{statements}
\\endif"""
# psql replaces it; a name that is missing in this schema must not be found in the next one of the search_path.
SCHEMA = "syntegra_db_schema"
# The file has the block in a variable of psql.
PROTECT = "DO :'syntegra_db_protection';"
SET_SCHEMA = f"SELECT current_schema() AS {SCHEMA} \\gset\n\n"
DROP_INVALID_INDEX = """\
SELECT EXISTS (
  SELECT FROM pg_index WHERE indexrelid = to_regclass(format('%I.%I', current_schema(), {name})) AND NOT indisvalid
) AS is_invalid \\gset
\\if :is_invalid
DROP INDEX CONCURRENTLY IF EXISTS :"{schema}".{quoted};
\\endif
"""


def collect_functions(module: ModuleType) -> tuple[CollectedSteps | None, CollectedSteps | None]:
    """Return the steps of the upgrade and the downgrade of a revision; see `collect_steps`."""
    context = _offline_context(io.StringIO())
    return collect_steps(context, module.upgrade), collect_steps(context, module.downgrade)


def collect_upgrade(module: ModuleType) -> CollectedSteps | None:
    """Return the steps of the upgrade of a revision; see `collect_steps`."""
    return collect_steps(_offline_context(io.StringIO()), module.upgrade)


def collect_revision(module: ModuleType) -> dict[Direction, list[Step]] | None:
    """Return the steps of both directions of a revision, or None if Alembic can write both as one transaction."""
    upgrade, downgrade = collect_functions(module)
    if upgrade is None or downgrade is None or not (upgrade.is_divided or downgrade.is_divided):
        return None
    return {"upgrade": upgrade.steps, "downgrade": downgrade.steps}


def require_own_objects() -> str:
    """Return the statement that fails if the open transaction has changed an object in the schema of the extension."""
    return read_template("require_own_objects").format(statements=check_own_objects())


def check_own_objects() -> str:
    """Return the same for a block of PL/pgSQL."""
    objects = "string_to_array(current_setting('syntegra_db.other_objects'), ' ')::oid[]"
    query = as_block(qualify_calls(CHANGED_ELSEWHERE.format(objects=objects)))
    return read_template("own_objects").format(changed_elsewhere=query)


class StepScript:
    """The statements for psql of steps."""

    step_table, schema = STEP_TABLE, SCHEMA

    def render_steps(self, steps: Sequence[Step]) -> str:
        """Return the statements of all steps; each is skipped if the record has it as finished."""
        return SET_SCHEMA + "\n\n".join(
            BLOCK.format(
                step_table=STEP_TABLE,
                number=number,
                title=literal(f"Step {number} of {len(steps)}: {step.description}"),
                statements=step.script(self, number),
            )
            for number, step in enumerate(steps, 1)
        )

    def render(self, *operations: MigrateOperation) -> str:
        """Return the statements of operations of Alembic."""
        buffer = io.StringIO()
        alembic = Operations(_offline_context(buffer))
        for operation in operations:
            alembic.invoke(operation)
        statements = re.sub(r"[ \t]+$", "", re.sub(r"\n{2,}", "\n", buffer.getvalue()), flags=re.MULTILINE)
        return statements.replace(f"{SCHEMA}.", f':"{SCHEMA}".').strip()

    def transaction(self, number: int, statements: str) -> str:
        """Return one transaction that also records step `number` as finished."""
        return f"BEGIN;\n{statements}\n{self._finish(number)}\n{PROTECT}\n{require_own_objects()}\nCOMMIT;"

    def autocommit(self, number: int, statements: str) -> str:
        """Return statements without a limit for locks, followed by the record of step `number`."""
        limit = "SELECT current_setting('lock_timeout') AS lock_timeout \\gset\nSET lock_timeout = 0;\n"
        return f"{limit}{statements}\nSET lock_timeout = :'lock_timeout';\n{self._finish(number)}"

    def drop_invalid_index(self, name: str) -> str:
        """Return statements that drop an index if an interrupted run left it invalid."""
        return DROP_INVALID_INDEX.format(name=literal(name), quoted=quote(name), schema=SCHEMA)

    def _finish(self, number: int) -> str:
        return f"UPDATE {STEP_TABLE} SET is_finished = true WHERE step = {number};"  # noqa: S608  of a file


def _offline_context(buffer: io.StringIO) -> MigrationContext:
    options = {"as_sql": True, "literal_binds": True, "output_buffer": buffer}
    # The default paramstyle would double a percent sign.
    return MigrationContext.configure(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, opts=options)
