"""Where the revisions are, and Alembic's configuration for using them without an alembic.ini."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.config import Config
from alembic.script import ScriptDirectory

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from syntegra_db.migrations.options import MigrationOptions

VERSION_TABLE = "alembic_version"


def script_location() -> Path:
    """Return the folder of the revisions: inside the installed package, or beside it in a checkout."""
    packaged = Path(__file__).with_name("alembic")
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "alembic"


def alembic_config(url: URL | None = None, options: MigrationOptions | None = None) -> Config:
    """Return Alembic's configuration for the database at `url`, by default the one that the settings name.

    The URL travels as an object: in an option of the configuration, a `%` in the password would be interpolated.
    """
    config = Config()
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    if url is not None:
        config.attributes["url"] = url
    if options is not None:
        config.attributes["options"] = options
    return config


@cache
def script_directory() -> ScriptDirectory:
    """Return the revisions of this package."""
    return ScriptDirectory.from_config(alembic_config())


def head_revision() -> str:
    """Return the newest revision of this package, such as `003`."""
    head = script_directory().get_current_head()
    if head is None:
        raise RuntimeError(f"There is no revision in {script_location()}; the package is not whole: install it again.")
    return head
