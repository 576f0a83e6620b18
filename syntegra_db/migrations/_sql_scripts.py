"""The revisions as plain SQL, for people with psql and nothing else.

The statements are Alembic's own (its offline mode); around them stands what a file needs that Alembic does at run time:
it applies whole or not at all, on the right revision, and while no other migration runs.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, NamedTuple

from alembic import command
from alembic.util import CommandError

from syntegra_db.errors import RevisionError
from syntegra_db.migrations._config import alembic_config
from syntegra_db.migrations._options import MigrationOptions
from syntegra_db.revisions import VERSION_TABLE, script_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from alembic.script import Script

SCRIPT = """\
-- {title}
--
-- Made from alembic/versions/{source} by `make sql`: change the revision, not this file.
-- For psql, without any flag; it applies whole or not at all, and psql then exits with status 3.

\\set ON_ERROR_STOP on
\\set QUIET on

BEGIN;

-- A wait for a lock would stall every writer that comes after; after a lock timeout, run the file again.
SET LOCAL lock_timeout = '{lock_timeout:.0f}ms';

DO $$
DECLARE
  stamp text;
BEGIN
  IF NOT pg_try_advisory_xact_lock(('x' || left(encode(sha256(convert_to(
       'syntegra_db:' || current_schema() || '.{version_table}', 'UTF8')), 'hex'), 16))::bit(64)::bigint) THEN
    RAISE EXCEPTION 'another migration is running; wait for it to end, then run this file again';
  END IF;
  IF to_regclass(quote_ident(current_schema()) || '.{version_table}') IS NOT NULL THEN
    SELECT string_agg(version_num, ' and ' ORDER BY version_num) INTO stamp FROM {version_table};
  END IF;
{guard}
END
$$;

{statements}

COMMIT;

\\echo {done}
"""
UPGRADE_GUARD = """\
  IF stamp >= '{revision}' THEN
    RAISE EXCEPTION 'revision {revision} is applied already: the database is at revision %', stamp;
  ELSIF stamp IS DISTINCT FROM {before} THEN
    RAISE EXCEPTION 'revision {revision} goes on top of {before_name}, but the database is at %',
      coalesce('revision ' || stamp, 'no revision')
      USING HINT = 'Run the files of migrations/ in the order of their numbers.';
  END IF;"""
ROLLBACK_GUARD = """\
  IF stamp IS DISTINCT FROM '{revision}' THEN
    RAISE EXCEPTION 'this takes back revision {revision}, but the database is at %',
      coalesce('revision ' || stamp, 'no revision')
      USING HINT = 'Take revisions back one by one, the newest first.';
  END IF;"""


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
        RevisionError: there is no such revision.
    """
    try:
        script = script_directory().get_revision(revision)
    except CommandError as error:
        raise RevisionError(f"{error}. `syntegra-db status` says which revisions there are.") from None
    if script is None:
        raise RevisionError(f"{revision} is no revision of its own; `syntegra-db status` says which ones there are.")
    return rollback_script(script) if rollback else upgrade_script(script)


def write_sql_scripts(folder: Path) -> list[str]:
    """Write all files to `folder` and return their names; a file of that folder that is none of them is removed."""
    scripts = list(render_sql_scripts())
    for stale in {file.name for file in folder.glob("[0-9]*.sql")} - {script.name for script in scripts}:
        (folder / stale).unlink()
    for script in scripts:
        (folder / script.name).write_text(script.text, encoding="utf-8")
    return [script.name for script in scripts]


def upgrade_script(script: Script) -> SqlScript:
    """Return the upgrade of a revision as a file for psql."""
    revision, before = script.revision, script.down_revision
    guard = UPGRADE_GUARD.format(
        revision=revision,
        before=f"'{before}'" if before else "NULL",
        before_name=f"revision {before}" if before else "no other",
    )
    statements = _offline_sql("upgrade", f"{before or 'base'}:{revision}")
    title = f"Revision {revision}. {script.doc}"
    return SqlScript(
        f"{revision}_{_slug(script)}.sql", _script(script, title, guard, statements, f"Revision {revision} applied.")
    )


def rollback_script(script: Script) -> SqlScript:
    """Return the downgrade of a revision as a file for psql."""
    revision = script.revision
    guard = ROLLBACK_GUARD.format(revision=revision)
    statements = _offline_sql("downgrade", f"{revision}:{script.down_revision or 'base'}")
    title = f"Takes back revision {revision} and loses the rows of its tables. {script.doc}"
    return SqlScript(
        f"{revision}_rollback_{_slug(script).removeprefix('create_')}.sql",
        _script(script, title, guard, statements, f"Revision {revision} taken back."),
    )


def _script(script: Script, title: str, guard: str, statements: str, done: str) -> str:
    return SCRIPT.format(
        title=title,
        source=script.path.rpartition("/")[2],
        lock_timeout=MigrationOptions.model_fields["lock_timeout"].default * 1000,
        version_table=VERSION_TABLE,
        guard=guard,
        statements=statements,
        done=done,
    )


def _slug(script: Script) -> str:
    return script.path.rpartition("/")[2].removesuffix(".py").removeprefix(f"{script.revision}_")


def _offline_sql(direction: str, revisions: str) -> str:
    """Return the statements of Alembic's offline mode without its transaction and its comments."""
    buffer = io.StringIO()
    config = alembic_config()
    config.output_buffer = buffer
    getattr(command, direction)(config, revisions, sql=True)
    text = re.sub(r"^(BEGIN;|COMMIT;|-- Running .*)\n*", "", buffer.getvalue(), flags=re.MULTILINE)
    # An empty version table stays behind when Alembic itself goes back to base.
    text = text.replace(f"CREATE TABLE {VERSION_TABLE}", f"CREATE TABLE IF NOT EXISTS {VERSION_TABLE}")
    text = re.sub(rf"^DROP TABLE {VERSION_TABLE};\n*", "", text, flags=re.MULTILINE)
    text = re.sub(rf" RETURNING {VERSION_TABLE}\.version_num;", ";", text)
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).strip()
