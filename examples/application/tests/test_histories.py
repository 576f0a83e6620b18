"""The two histories in one database: neither sees the tables of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alembic.util import CommandError
from conftest import run_alembic
from sqlalchemy import inspect, select, table, text

from syntegra_db.catalog import verify
from syntegra_db.migrations import downgrade, require_head, upgrade

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

APPLICATION_VERSION = select(text("version_num")).select_from(table("application_version"))


def test_autogenerate_ignores_the_tables_of_syntegra_db(syntegra_url: URL) -> None:
    run_alembic(syntegra_url, "check")


def test_autogenerate_finds_a_missing_column_of_the_application(syntegra_engine: Engine, syntegra_url: URL) -> None:
    with syntegra_engine.begin() as connection:
        connection.execute(text("ALTER TABLE clients DROP COLUMN name"))
    with pytest.raises(CommandError, match=r"New upgrade operations detected: .*add_column.*name"):
        run_alembic(syntegra_url, "check")


def test_syntegra_db_accepts_the_foreign_keys_of_the_application(syntegra_engine: Engine) -> None:
    require_head(syntegra_engine)
    with syntegra_engine.connect() as connection:
        assert verify(connection).findings == []


def test_each_history_moves_alone(syntegra_engine: Engine, syntegra_url: URL) -> None:
    downgrade("base", syntegra_url)
    assert set(inspect(syntegra_engine).get_table_names()) == {"alembic_version", "application_version", "clients"}
    upgrade(url=syntegra_url)
    run_alembic(syntegra_url, "check")
    with syntegra_engine.connect() as connection:
        assert connection.scalars(APPLICATION_VERSION).all() == ["0002"]
