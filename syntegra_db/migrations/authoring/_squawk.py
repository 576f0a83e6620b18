"""What squawk, a linter of SQL migrations, reports about the statements of a revision."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from syntegra_db.errors import RevisionError
from syntegra_db.migrations.online import AutocommitStep, StepScript

if TYPE_CHECKING:
    from collections.abc import Iterable

    from alembic.operations.ops import MigrateOperation

    from syntegra_db.migrations.online import Step
    from syntegra_db.recorded_steps import Direction

CONFIGURATION = ".squawk.toml"
# What a downgrade does cannot always be done online.
ALLOWED_IN_DOWNGRADE = ("adding-not-nullable-field", "adding-required-field")
ONLINE_FORMS = {
    "adding-field-with-default": "op.add_column without the default, then op.backfill",
    "adding-foreign-key-constraint": "op.create_foreign_key_online",
    "adding-not-nullable-field": "op.set_not_null_online",
    "adding-required-field": "a nullable column, op.backfill, then op.set_not_null_online",
    "constraint-missing-not-valid": "op.create_check_constraint_online or op.create_foreign_key_online",
    "disallowed-unique-constraint": "op.create_unique_constraint_online",
    "require-concurrent-index-creation": "op.create_index_online",
    "require-concurrent-index-deletion": "op.drop_index_online",
}
TRANSACTION = "BEGIN;\n{statements}\nCOMMIT;"


def report_of_squawk(
    root: Path, steps: Iterable[Step], direction: Direction, reported: Iterable[MigrateOperation]
) -> list[str]:
    """Return the reports about `steps`, with our operation to use, except about operations that are `reported` already.

    `root` is the checkout, whose configuration is used.

    Raises:
        RevisionError: squawk is not installed, or it failed.
    """
    program = Path(sys.executable).with_name("squawk")
    if not program.exists():
        raise RevisionError(
            "squawk is not installed, and it checks the statements of revisions. Install it: make .venv"
        )
    statements = "\n".join(filter(None, (_statements(step, list(reported)) for step in steps)))
    command = [str(program), "--config", CONFIGURATION, "--reporter", "json"]
    result = subprocess.run(command, cwd=root, input=statements, capture_output=True, text=True, check=False)  # noqa: S603  constants
    try:
        # It prints a list also if it finds nothing, and none if it fails.
        found = json.loads(result.stdout)
    except ValueError:
        raise RevisionError(f"squawk failed: {result.stderr or result.stdout}") from None
    lines = statements.splitlines()
    return [
        f"{_shorten(lines[report['line']])}: squawk reports {report['rule_name']}: {report['message']}"
        + (f" Use {form}." if (form := ONLINE_FORMS.get(report["rule_name"])) else "")
        for report in found
        if direction == "upgrade" or report["rule_name"] not in ALLOWED_IN_DOWNGRADE
    ]


def _statements(step: Step, reported: list[MigrateOperation]) -> str:
    operations = [
        operation
        for operation in ([step.operation] if isinstance(step, AutocommitStep) else step.in_transaction())
        if operation not in reported
    ]
    statements = StepScript().render(*operations)
    return (
        statements if isinstance(step, AutocommitStep) or not statements else TRANSACTION.format(statements=statements)
    )


def _shorten(line: str) -> str:
    return line.strip()[:60]
