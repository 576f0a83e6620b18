"""The autogenerate of an application in the same database ignores the objects of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import BigInteger, Column, ForeignKey, Index, MetaData, Table

from syntegra_db import tenancy
from syntegra_db.migrations import include_name, include_object
from syntegra_db.models import Base

if TYPE_CHECKING:
    from support.servers import Database

FILTERS = {"include_name": include_name, "include_object": include_object}


def differences(database: Database, metadata: MetaData, options: dict[str, Any]) -> list[Any]:
    with database.engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


@pytest.fixture
def shared(database: Database) -> Database:
    """A database at head with clients that are separated, and a table of the application."""
    tenancy.enable(database.engine)
    database.execute(
        "CREATE TABLE clients (id bigint PRIMARY KEY);"
        "ALTER TABLE clusters ADD CONSTRAINT of_client FOREIGN KEY (client_id) REFERENCES clients, ADD note text;"
        "CREATE INDEX note ON clusters (note);"
        "CREATE TABLE kpi_summary_past (id bigint); CREATE TABLE kpi_summary_2026_11 (id bigint);"
        "CREATE TABLE kpi_summary_default (id bigint)"
    )
    return database


def test_only_the_application_s_tables_are_compared(shared: Database) -> None:
    metadata = MetaData()
    assert [operation for operation, table in differences(shared, metadata, FILTERS)] == ["remove_table"]
    Table("clients", metadata, Column("id", BigInteger, primary_key=True))
    assert differences(shared, metadata, FILTERS) == []
    removed = {table.name for operation, table in differences(shared, metadata, {}) if operation == "remove_table"}
    assert removed >= {*Base.metadata.tables, "bound_logins", "kpi_summary_past"}


def test_metadata_that_contains_the_package_s_tables_is_not_compared_with_them(shared: Database) -> None:
    metadata = MetaData()
    for table in Base.metadata.tables.values():
        table.to_metadata(metadata)
    clusters = metadata.tables["clusters"]
    Index("new_index", clusters.c.client_id)
    clients = Table("clients", metadata, Column("id", BigInteger, primary_key=True))
    assert differences(shared, metadata, FILTERS) == []
    clients.append_column(Column("cluster", ForeignKey("clusters.id")))
    assert [difference[0] for difference in differences(shared, metadata, FILTERS)] == ["add_column", "add_fk"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("clients", "table"),
        ("clusters_of_clients", "table"),
        ("kpi_summary_2026", "table"),
        ("application_version", "table"),
        ("client_status", "enum"),
        (None, "schema"),
        ("public", "schema"),
    ],
)
def test_similar_names_are_the_application_s(name: str | None, kind: str) -> None:
    assert include_name(name, kind, {"schema_name": None})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("alembic_version", "table"),
        ("alembic_version_steps", "table"),
        ("trend_signals", "table"),
        ("text_summary_2031_01", "table"),
        ("anomaly_severity", "enum"),
        ("trend_status", "type"),
    ],
)
def test_names_of_the_package_are_ignored(name: str, kind: str) -> None:
    assert not include_name(name, kind, {"schema_name": None})
