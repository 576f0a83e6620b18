"""Write the next revision: from the differences between the models and the newest revision."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alembic import command

from syntegra_db.catalog import MANIFESTS, load_manifest
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import RevisionError
from syntegra_db.migrations._commands import run_in_transaction
from syntegra_db.migrations._config import MigrationRequest, alembic_config
from syntegra_db.migrations.authoring._alike import kept_alike
from syntegra_db.migrations.authoring._checkout import (
    add_to_changelog,
    format_files,
    require_checkout,
    require_no_tests,
    write_test_module,
)
from syntegra_db.migrations.authoring._differences import differences, read_models
from syntegra_db.migrations.authoring._docstring import derive_headings, with_headings
from syntegra_db.migrations.authoring._effects import drops
from syntegra_db.migrations.authoring._online_forms import with_online_forms
from syntegra_db.migrations.authoring._phase_rules import divide_by_phase
from syntegra_db.migrations.online import collect_functions
from syntegra_db.revisions import head_revision, revision_before, script_directory

if TYPE_CHECKING:
    from alembic.operations import MigrationScript
    from sqlalchemy.engine import URL

    from syntegra_db.migrations.authoring._differences import Operations

MAX_SLUG_LENGTH = 40
COMMENT = re.compile(r"^ +# ### .* ###\n", re.MULTILINE)
NO_OPERATION = "    pass\n"


class NewRevision(NamedTuple):
    """The files of a new revision; `remarks` is what ruff reports, `is_empty` that the models have no difference."""

    revision: str
    paths: list[Path]
    remarks: str
    is_empty: bool


def require_new_name(name: str) -> str:
    """Return the first line of the revision's docstring, without its period.

    Raises:
        RevisionError: there is no name, or another revision has it.
    """
    message = " ".join(name.split()).rstrip(".")
    if not re.search(r"[A-Za-z]", message) or '"' in message or "\\" in message:
        raise RevisionError(
            "A revision needs a name with letters, without quotes or backslashes, that says what it does: "
            "make revision NAME='Add unit to kpi_summary'"
        )
    message, slug = message[0].upper() + message[1:], make_slug(message)
    for script in script_directory().walk_revisions():
        if Path(script.path).stem.partition("_")[2] == slug:
            raise RevisionError(f"Revision {script.revision} has the name {message} already. Choose another name.")
    return message


def make_slug(message: str) -> str:
    """Return `message` as a part of a file name."""
    slug = "_".join(re.findall(r"\w+", message.lower()))
    return slug if len(slug) <= MAX_SLUG_LENGTH else slug[:MAX_SLUG_LENGTH].rpartition("_")[0] or slug[:MAX_SLUG_LENGTH]


def write_revision(url: URL, name: str) -> NewRevision:
    """Write the next revision, its test module and its entry of the changelog, with the empty database at `url`.

    Raises:
        RevisionError: the name is missing or in use, the package is not a checkout, the newest revision has no
            manifest yet, or there are tests of a revision that was deleted.
    """
    root, message = require_checkout(), require_new_name(name)
    newest = head_revision()
    revision, slug = f"{int(newest) + 1:03}", make_slug(message)
    require_no_tests(root, revision)
    models = read_models(url)
    engine = unpooled_engine(url)
    with connect(engine) as connection, connection.begin():
        run_in_transaction(connection, "upgrade", newest)
    with connect(engine) as connection:
        more = differences(models, load_manifest(newest), kept_alike(newest))
        path = _autogenerate(MigrationRequest(connection), revision, message, more)
    try:
        is_empty = _complete(path, revision, newest)
        test = write_test_module(root, revision, slug, message, _lost_columns(revision))
        remarks = format_files(root, path, test)
    except BaseException:
        path.unlink()
        raise
    # Of a revision that was deleted.
    (MANIFESTS / f"{revision}.json").unlink(missing_ok=True)
    return NewRevision(revision, [path, test, add_to_changelog(root, revision, message)], remarks, is_empty)


def _autogenerate(request: MigrationRequest, revision: str, message: str, more: tuple[Operations, Operations]) -> Path:
    def add_rules(_context: Any, _revision: Any, scripts: list[MigrationScript]) -> None:
        for script in scripts:
            for operations, (first, last, restored) in zip(
                (script.upgrade_ops, script.downgrade_ops), more, strict=True
            ):
                if operations is not None:
                    operations.ops = [*first, *with_online_forms(operations.ops, restored), *last]

    config = alembic_config(request)
    config.set_main_option("file_template", f"%%(rev)s_{make_slug(message)}")
    # Alembic prints the path; only `cli` prints.
    with redirect_stdout(io.StringIO()):
        command.revision(config, message, autogenerate=True, rev_id=revision, process_revision_directives=add_rules)
    script_directory.cache_clear()
    return Path(script_directory().get_revision(revision).path)


def _complete(path: Path, revision: str, newest: str) -> bool:
    """Fill the docstring in, and return whether the revision does nothing."""
    text = COMMENT.sub("", path.read_text(encoding="utf-8"))
    if NO_OPERATION in text:
        path.write_text(text.replace(NO_OPERATION, "    raise NotImplementedError\n"), encoding="utf-8")
        return True
    path.write_text(text, encoding="utf-8")
    module = script_directory().get_revision(revision).module
    upgrade, downgrade = collect_functions(module)
    # What is generated uses no connection.
    if upgrade is not None and downgrade is not None:
        before = load_manifest(newest)
        phases = divide_by_phase(upgrade.operations, before, kept_alike(newest))
        if phases.ending and not phases.beginning:
            text = text.replace('phase = "expand"', 'phase = "contract"')
        headings = derive_headings(upgrade, downgrade, before, newest)
        path.write_text(with_headings(text, headings), encoding="utf-8")
        script_directory.cache_clear()
    return False


def _lost_columns(revision: str) -> list[str]:
    """Return the columns that the upgrade drops and that no other column is kept alike with."""
    upgrade, _ = collect_functions(script_directory().get_revision(revision).module)
    dropped = drops(upgrade.steps) if upgrade is not None else []
    alike = {
        f"{table}.{name}": f"{table}.{other}"
        for table, *names in kept_alike(revision_before(revision))
        for name, other in (names, reversed(names))
    }
    return [column for column in dropped if alike.get(column, column) in dropped]
