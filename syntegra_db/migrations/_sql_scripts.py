"""Render the revisions as plain SQL files for psql.

The statements come from Alembic's offline mode. The templates add what Alembic does at run time: the file runs in one
transaction, checks the current revision, and takes the migration lock.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from alembic import command
from alembic.util import CommandError

from syntegra_db.catalog import SCHEMAS_WITH_TABLES, SELECT_REVISION, declared_columns
from syntegra_db.errors import RevisionError
from syntegra_db.migrations._config import alembic_config
from syntegra_db.migrations._options import MigrationOptions
from syntegra_db.network import IDLE_IN_TRANSACTION_SECONDS
from syntegra_db.revisions import VERSION_TABLE, list_revisions, script_directory
from syntegra_db.search_path import UNTRUSTED_OBJECTS
from syntegra_db.sql import SYSTEM_SCHEMA, literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.script import Script

TEMPLATES = Path(__file__).with_name("templates")


class SqlScript(NamedTuple):
    """A file for psql: its name, such as `003_create_analytics_tables.sql`, and its text."""

    name: str
    text: str


def render_sql_scripts() -> Iterator[SqlScript]:
    """Yield each revision and its rollback as a file for psql, oldest revision first."""
    for script in reversed(list(script_directory().walk_revisions())):
        yield upgrade_script(script)
        yield rollback_script(script)


def render_sql_script(revision: str, *, rollback: bool = False) -> SqlScript:
    """Return one revision, or its rollback, as a file for psql.

    Raises:
        RevisionError: The package has no such revision.
    """
    try:
        script = script_directory().get_revision(revision)
    except CommandError as error:
        raise RevisionError(f"{error}. {list_revisions()}") from None
    if script is None:
        raise RevisionError(f"{revision} is not a revision. {list_revisions()}")
    return rollback_script(script) if rollback else upgrade_script(script)


def write_sql_scripts(folder: Path) -> list[str]:
    """Write all files to `folder`, delete its other numbered SQL files, and return the names of the written files."""
    scripts = list(render_sql_scripts())
    for stale in {file.name for file in folder.glob("[0-9]*.sql")} - {script.name for script in scripts}:
        (folder / stale).unlink()
    for script in scripts:
        (folder / script.name).write_text(script.text, encoding="utf-8")
    return [script.name for script in scripts]


def upgrade_script(script: Script) -> SqlScript:
    """Return the upgrade of a revision as a file for psql."""
    revision, before = script.revision, script.down_revision
    guard = _template("upgrade_guard.sql").format(
        revision=revision,
        before=f"'{before}'" if before else "NULL",
        before_name=f"revision {before}" if before else "no revision",
    )
    return SqlScript(
        f"{revision}_{_slug(script)}.sql",
        _render(
            script,
            title=f"Revision {revision}. {script.doc}",
            guard=guard,
            statements=_offline_sql("upgrade", f"{before or 'base'}:{revision}"),
            result=f"Revision {revision} applied.",
        ),
    )


def rollback_script(script: Script) -> SqlScript:
    """Return the downgrade of a revision as a file for psql."""
    revision = script.revision
    return SqlScript(
        f"{revision}_rollback_{_slug(script).removeprefix('create_')}.sql",
        _render(
            script,
            title=f"Revert revision {revision} and delete all rows of its tables. Its upgrade: {script.doc}",
            guard=_template("rollback_guard.sql").format(revision=revision),
            statements=_offline_sql("downgrade", f"{revision}:{script.down_revision or 'base'}"),
            result=f"Revision {revision} reverted.",
        ),
    )


def _render(script: Script, *, title: str, guard: str, statements: str, result: str) -> str:
    return _template("script.sql").format(
        title=title,
        source=Path(script.path).name,
        lock_timeout=MigrationOptions.model_fields["lock_timeout"].default * 1000,
        idle_timeout=IDLE_IN_TRANSACTION_SECONDS,
        version_table=VERSION_TABLE,
        untrusted_objects=UNTRUSTED_OBJECTS.format(schemas="declared_schemas").strip("\n").rstrip(),
        system_schema=SYSTEM_SCHEMA,
        schemas_with_tables=SCHEMAS_WITH_TABLES.format(
            declared=literal(declared_columns()), system_schema=SYSTEM_SCHEMA
        ).strip("\n"),
        select_revision=SELECT_REVISION.format(table=f"%I.{VERSION_TABLE}").replace("'", "''"),
        guard=guard.rstrip(),
        statements=statements,
        result=result,
    )


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _slug(script: Script) -> str:
    return Path(script.path).stem.removeprefix(f"{script.revision}_")


def _offline_sql(direction: str, revisions: str) -> str:
    """Return the statements of Alembic's offline mode without its transaction statements and comments."""
    buffer = io.StringIO()
    config = alembic_config()
    config.output_buffer = buffer
    getattr(command, direction)(config, revisions, sql=True)
    text = re.sub(r"^(BEGIN;|COMMIT;|-- Running .*)\n*", "", buffer.getvalue(), flags=re.MULTILINE)
    # Alembic keeps the empty version table when it downgrades to base online; do the same here.
    text = text.replace(f"CREATE TABLE {VERSION_TABLE}", f"CREATE TABLE IF NOT EXISTS {VERSION_TABLE}")
    text = re.sub(rf"^DROP TABLE {VERSION_TABLE};\n*", "", text, flags=re.MULTILINE)
    text = re.sub(rf" RETURNING {VERSION_TABLE}\.version_num;", ";", text)
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).strip()
