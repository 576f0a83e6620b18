"""Two sets of the tables in one database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.sample_rows import load_rows
from syntegra_db import migrations

if TYPE_CHECKING:
    from support.servers import Database


@pytest.fixture
def two_sets(database: Database) -> Database:
    """Return a database with the tables and rows in public, where the extension is, and a second set in app."""
    load_rows(database, 200)
    database.execute("CREATE SCHEMA app")
    migrations.upgrade(url=database.url, schema="app")
    database.execute("INSERT INTO app.clusters SELECT * FROM public.clusters")
    return database
