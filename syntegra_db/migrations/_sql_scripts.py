"""Render the revisions as plain SQL files for psql.

The statements come from Alembic's offline mode. The templates add what Alembic does at run time: the file runs in one
transaction, checks the current revision, and takes the migration lock.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alembic import command
from alembic.util import CommandError
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.schema import CreateTable

from syntegra_db.catalog import (
    NAMES_ELSEWHERE,
    OBJECTS_ELSEWHERE,
    SCHEMAS_WITH_TABLES,
    SELECT_REVISION,
    ddl,
    declared_columns,
    declared_names,
)
from syntegra_db.errors import RevisionError
from syntegra_db.migrations._config import alembic_config
from syntegra_db.migrations._options import MigrationOptions
from syntegra_db.migrations._protection import creates_unprotected, protection_block, render_protection
from syntegra_db.migrations._templates import as_block, read_template
from syntegra_db.migrations.online import PROTECT, StepScript, collect_revision, require_own_objects, require_values
from syntegra_db.network import IDLE_IN_TRANSACTION_SECONDS
from syntegra_db.recorded_steps import STEP_TABLE, step_table
from syntegra_db.revisions import IS_UNCHANGED, VERSION_TABLE, list_revisions, revision_file, script_directory
from syntegra_db.sql import RELATION_KIND, SYSTEM_SCHEMA, literal
from syntegra_db.trusted_objects import UNTRUSTED_OBJECTS
from syntegra_db.trusted_tables import REMEDY, VERSION_COLUMNS, untrusted_part

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alembic.script import Script

    from syntegra_db.migrations.online._steps import Step
    from syntegra_db.recorded_steps import Direction

LOCK_KEY = f"""('x' || left(encode(sha256(convert_to(
       'syntegra_db:' || {{schema}} || '.{VERSION_TABLE}', 'UTF8')), 'hex'), 16))::bit(64)::bigint"""
DIALECT = PGDialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
# The control, format and separator characters of Unicode that `errors.escape_control_characters` escapes, up to U+FFFF.
UNPRINTABLE = (
    r"[\u0001-\u001f\u007f-\u009f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]"
)


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
    revision, before = script.revision, _before(script)
    texts = {
        "title": f"Revision {revision}. {script.doc}",
        "result": f"Revision {revision} applied.",
        "revision_guard": read_template("upgrade_guard").format(
            revision=revision,
            before=literal(before),
            before_name=f"revision {before}" if before else "no revision",
        ),
    }
    return SqlScript(f"{revision}_{_slug(script)}.sql", _render(script, "upgrade", texts))


def rollback_script(script: Script) -> SqlScript:
    """Return the downgrade of a revision as a file for psql."""
    revision = script.revision
    texts = {
        "title": f"Revert revision {revision} and delete all rows of its tables. Its upgrade: {script.doc}",
        "result": f"Revision {revision} reverted.",
        "revision_guard": read_template("rollback_guard").format(revision=revision, before=_before(script) or "base"),
    }
    return SqlScript(
        f"{revision}_rollback_{_slug(script).removeprefix('create_')}.sql", _render(script, "downgrade", texts)
    )


def _render(script: Script, direction: Direction, texts: dict[str, str]) -> str:
    """Return one transaction, or a file that commits and records each step if a direction of the revision has steps."""
    settings = {
        **texts,
        "revision": script.revision,
        "names_elsewhere": _names_elsewhere(script, direction),
        "source": Path(script.path).name,
        "lock_timeout": MigrationOptions.model_fields["lock_timeout"].default * 1000,
        "idle_timeout": IDLE_IN_TRANSACTION_SECONDS,
        "version_table": VERSION_TABLE,
        "step_table": STEP_TABLE,
        "require_own_objects": require_own_objects(),
    }
    steps = collect_revision(script.module)
    protection = _before(script), script.revision
    if steps is None:
        way = protection if direction == "upgrade" else reversed(protection)
        return read_template("script").format(
            guard=_guard("true", settings),
            statements=_offline_sql(script, direction),
            protection=f"{render_protection(protection)}\n\n" if creates_unprotected(*way) else "",
            **settings,
        )
    require_values(steps[direction], revision_file(script.revision))
    return read_template("steps").format(
        guard=_guard("false", settings),
        protection=protection_block(protection),
        protect=PROTECT,
        **_step_texts(script, direction, steps[direction]),
        **settings,
    )


def _names_elsewhere(script: Script, direction: Direction) -> str:
    """Return the query for what is declared before the file, or also after it if some of its steps are finished."""
    before, after = (_before(script), script.revision)[:: 1 if direction == "upgrade" else -1]
    declared, kept = (literal(names) for names in (declared_names(before), declared_names(before, after, in_all=True)))
    by_state = f"CAST(CASE WHEN unfinished IS NULL THEN {declared}\n      ELSE {kept} END AS json)"
    return as_block(
        NAMES_ELSEWHERE.format(
            declared=by_state,
            schemas="declared_schemas",
            schema="main_schema",
            relation_kind=RELATION_KIND.format(relkind="relkind"),
        )
    )


def _untrusted_part() -> str:
    """Return the query for what could run code when the file writes to the version table or the record of steps."""
    steps = ", ".join(
        f"{column.name} {column.type.compile(DIALECT).lower()}{'' if column.nullable else ' NOT NULL'}"
        for column in step_table(None).columns
    )
    declared = ", ".join(
        f"({literal(name)}::name, {literal(columns)})"
        for name, columns in ((VERSION_TABLE, VERSION_COLUMNS), (STEP_TABLE, steps))
    )
    return as_block(untrusted_part(declared, "main_schema"))


def _guard(is_local: str, settings: dict[str, Any]) -> str:
    guard = read_template("guard").format(
        is_local=is_local,
        lock_key=LOCK_KEY.format(schema="main_schema"),
        untrusted_objects=as_block(UNTRUSTED_OBJECTS.format(schemas="declared_schemas")),
        unprintable=UNPRINTABLE.replace("\\", "\\\\"),
        system_schema=SYSTEM_SCHEMA,
        schemas_with_tables=SCHEMAS_WITH_TABLES.format(
            declared=literal(declared_columns()), system_schema=SYSTEM_SCHEMA, is_unchanged=IS_UNCHANGED
        ).strip("\n"),
        untrusted_part=_untrusted_part(),
        remedy=literal(REMEDY),
        objects_elsewhere=as_block(OBJECTS_ELSEWHERE.format(schemas="declared_schemas", schema="main_schema")),
        is_unchanged=IS_UNCHANGED,
        relation_kind=RELATION_KIND.format(relkind="relkind"),
        select_revision=SELECT_REVISION.format(table=f"%I.{VERSION_TABLE}").replace("'", "''"),
        **{**settings, "revision_guard": settings["revision_guard"].rstrip()},
    )
    return guard.rstrip()


def _step_texts(script: Script, direction: Direction, steps: Sequence[Step]) -> dict[str, str]:
    revision, before = script.revision, _before(script)
    reached = revision if direction == "upgrade" else before
    return {
        "direction": direction,
        "descriptions": ",\n    ".join(literal(step.description) for step in steps),
        "create_step_table": " ".join(str(CreateTable(step_table(None)).compile(dialect=DIALECT)).split()),
        "steps": StepScript().render_steps(steps),
        "stamp": ddl.join_statements(
            ddl.stamp(revision) if reached and before is None else ddl.restamp(reached),
            ddl.comment_version_table(reached),
        ),
        "lock_key": LOCK_KEY.format(schema="current_schema()"),
    }


def _before(script: Script) -> str | None:
    """Return the revision before, of which there is at most one."""
    return script.down_revision if isinstance(script.down_revision, str) else None


def _slug(script: Script) -> str:
    return Path(script.path).stem.removeprefix(f"{script.revision}_")


def _offline_sql(script: Script, direction: Direction) -> str:
    """Return the statements of Alembic's offline mode without its transaction statements and comments.

    Raises:
        RevisionError: the revision has an autocommit block, and uses the connection itself.
    """
    revision, before = script.revision, _before(script) or "base"
    buffer = io.StringIO()
    config = alembic_config()
    config.output_buffer = buffer
    getattr(command, direction)(
        config, f"{before}:{revision}" if direction == "upgrade" else f"{revision}:{before}", sql=True
    )
    if len(re.findall(r"^COMMIT;", buffer.getvalue(), flags=re.MULTILINE)) > 1:
        raise RevisionError(
            f"Revision {revision} has an autocommit block and uses the connection itself (op.get_bind()), so it cannot "
            "be written as a file for psql. Use op.execute() instead."
        )
    text = re.sub(r"^(BEGIN;|COMMIT;|-- Running .*)\n*", "", buffer.getvalue(), flags=re.MULTILINE)
    # Alembic keeps the empty version table when it downgrades to base online; do the same here.
    text = text.replace(f"CREATE TABLE {VERSION_TABLE}", f"CREATE TABLE IF NOT EXISTS {VERSION_TABLE}")
    text = re.sub(rf"^DROP TABLE {VERSION_TABLE};\n*", "", text, flags=re.MULTILINE)
    text = re.sub(rf" RETURNING {VERSION_TABLE}\.version_num;", ";", text)
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).strip()
