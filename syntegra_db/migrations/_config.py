"""Alembic's configuration for this package, without an alembic.ini, and the migration request that it carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alembic.config import Config

from syntegra_db.revision_files import script_location

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

    from syntegra_db.migrations._options import MigrationOptions
    from syntegra_db.recorded_steps import Direction

REQUEST = "syntegra_db"


@dataclass
class MigrationRequest:
    """What a migration needs to know beyond Alembic's own arguments, and the revision that it reached.

    `bind` is a URL or an engine, which are migrated with lock timeouts and retries, or a connection, whose transaction
    and retries are the caller's. Without one, the settings name the database. `direction` is None for `alembic stamp`.
    `schema` is the schema of the tables, by default the first one of the search_path; a connection has its own.
    `contract` allows revisions on which code of the revision before does not work.
    """

    bind: URL | Engine | Connection | None = None
    options: MigrationOptions | None = None
    direction: Direction | None = None
    schema: str | None = None
    contract: bool = False
    reached: str | None = None

    @classmethod
    def from_config(cls, config: Config) -> MigrationRequest:
        """Return the request that `config` carries, or one for the attribute `connection` that Alembic's users set."""
        request: MigrationRequest | None = config.attributes.get(REQUEST)
        return request or cls(bind=config.attributes.get("connection"))


def alembic_config(request: MigrationRequest | None = None) -> Config:
    """Return Alembic's configuration for `request`, by default for the database that the settings name.

    The request is an object: in an option of the configuration, a `%` in the password would be interpolated.
    """
    config = Config()
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    # Without it, the attribute `connection` of a caller counts.
    if request is not None:
        config.attributes[REQUEST] = request
    return config
