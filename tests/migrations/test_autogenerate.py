"""`alembic check` and `alembic revision --autogenerate` accept what `verify` accepts, and render own types plainly."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

import pytest
from alembic import command
from alembic.util import CommandError

from support import drift
from support.commands import ROOT, run
from support.revisions import AFTER_HEAD, HEAD
from syntegra_db import migrations
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

ENV_OF_PACKAGE = """
from alembic import context
from sqlalchemy import Column, Index
from syntegra_db.migrations import run_env

def models_metadata():
    from syntegra_db.models import Base, AnomalySeverity
    from syntegra_db.models.exact_types import (
        ExactBigInteger, ExactDouble, ExactEnum, ExactInteger, ExactJson, ExactNumeric, ExactString, ExactText,
        ExactTimestamp,
    )
    from syntegra_db.models.types import Embedding
    table = Base.metadata.tables["clusters"]
    {changes}
    return Base.metadata

run_env(context, models_metadata)
"""
PLAIN_ENV = """
import os
from alembic import context
from sqlalchemy import create_engine

url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
with create_engine(url).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
OBJECTS_OF_APPLICATIONS = {
    "index": "CREATE INDEX app_name ON data_sources (name)",
    "expression index": "CREATE INDEX app_name ON data_sources (lower(name)) WHERE status IS NOT NULL",
    "column": "ALTER TABLE clusters ADD note text",
    "required column with default": "ALTER TABLE clusters ADD note integer NOT NULL DEFAULT 1 CHECK (note > 0)",
    "index on its column": "ALTER TABLE clusters ADD note jsonb; CREATE INDEX app_note ON clusters USING gin (note)",
    "vector column": "ALTER TABLE clusters ADD app_embedding vector(3), ADD app_half halfvec(3)",
    "foreign key": "CREATE TABLE clients (id bigint PRIMARY KEY);"
    "ALTER TABLE data_sources ADD CONSTRAINT app_client FOREIGN KEY (client_id) REFERENCES clients",
    "foreign key of its column": "CREATE TABLE owners (id bigint PRIMARY KEY);"
    "ALTER TABLE clusters ADD owner_id bigint REFERENCES owners",
    "unique column": "ALTER TABLE clusters ADD code text UNIQUE",
    "unique index on its column": "ALTER TABLE clusters ADD code text;"
    "CREATE UNIQUE INDEX app_u ON clusters (lower(code))",
    "reference to own table": "ALTER TABLE clusters ADD parent bigint REFERENCES clusters",
    "table": 'CREATE TABLE "App Table" (id bigint PRIMARY KEY, source_id bigint REFERENCES data_sources)',
    "type": "CREATE TYPE mood AS ENUM ('a'); CREATE DOMAIN name2 AS text;"
    "ALTER TABLE clusters ADD mood mood, ADD name2 name2",
    "vector index of another method": "DROP INDEX idx_text_summary_embedding; CREATE INDEX idx_text_summary_embedding"
    " ON text_summary USING hnsw ((embedding::halfvec(384)) halfvec_cosine_ops)",
}
OWN_TYPES = {
    "ExactBigInteger()": "bigint",
    "ExactInteger()": "integer",
    "ExactDouble()": "double precision",
    "ExactEnum(AnomalySeverity, 'anomaly_severity')": "anomaly_severity",
    "ExactJson()": "jsonb",
    "ExactNumeric()": "numeric",
    "ExactString(7)": "character varying(7)",
    "ExactText()": "text",
    "ExactTimestamp()": "timestamp with time zone",
    "Embedding()": "vector(384)",
    "mood": "mood",
}
ENUMS: LiteralString = "SELECT typname FROM pg_type WHERE typtype = 'e' ORDER BY 1"
DRIFT = {
    "unique index": ("CREATE UNIQUE INDEX app_name ON data_sources (name)", "remove_index.*app_name"),
    "unique constraint": ("ALTER TABLE data_sources ADD UNIQUE (name)", "remove_constraint"),
    "required column": ("ALTER TABLE clusters ADD note text NOT NULL", "remove_column.*note"),
    "unique constraint with default": ("ALTER TABLE clusters ADD code text DEFAULT '' UNIQUE", "remove_constraint"),
    "foreign key between own tables": (
        "ALTER TABLE clusters ADD FOREIGN KEY (cluster_id) REFERENCES data_sources",
        "remove_fk",
    ),
    "missing index": ("DROP INDEX idx_data_sources_status", "add_index.*idx_data_sources_status"),
    "type of column": ("ALTER TABLE clusters ALTER centroid TYPE text USING centroid::text", "modify_type.*centroid"),
}


@dataclass
class Project:
    """A copy of the directory `alembic`, whose env.py changes the models."""

    directory: Path
    url: str

    def write_env(self, text: str) -> None:
        (self.directory / "alembic" / "env.py").write_text(text, encoding="utf-8")

    def alembic(self, *arguments: str) -> tuple[int, str]:
        result = run("alembic", *arguments, url=self.url, cwd=self.directory)
        return result.returncode, result.stdout + result.stderr

    def autogenerate(self, *changes: str) -> str:
        """Return the next revision that Alembic writes for `changes` of the models."""
        self.write_env(ENV_OF_PACKAGE.format(changes="\n    ".join(changes)))
        status, output = self.alembic("revision", "--autogenerate", "--rev-id", AFTER_HEAD, "-m", "change")
        assert status == 0, output
        return (self.directory / "alembic" / "versions" / f"{AFTER_HEAD}_change.py").read_text(encoding="utf-8")

    def run_revision(self, *revisions: str) -> None:
        self.write_env(PLAIN_ENV)
        for name in revisions:
            status, output = self.alembic("upgrade" if name == AFTER_HEAD else "downgrade", name)
            assert status == 0, output


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    return Project(tmp_path, database.environment_url)


def schema(database: Database) -> list[tuple[object, ...]]:
    return database.query(
        "SELECT table_name, column_name, data_type, column_default FROM information_schema.columns"
        " WHERE table_schema = 'public' UNION ALL SELECT tablename, indexname, indexdef, NULL FROM pg_indexes"
        " WHERE schemaname = 'public' ORDER BY 1, 2"
    )


def check(database: Database) -> None:
    command.check(migrations.alembic_config(migrations._config.MigrationRequest(database.url)))  # noqa: SLF001


@pytest.mark.parametrize("statements", OBJECTS_OF_APPLICATIONS.values(), ids=OBJECTS_OF_APPLICATIONS)
def test_check_with_object_that_verify_accepts_passes(database: Database, statements: str) -> None:
    drift.run(database, *statements.split(";"))
    assert drift.drift_report(database).findings == []
    check(database)


@pytest.mark.parametrize(("statement", "difference"), DRIFT.values(), ids=DRIFT)
def test_check_with_object_that_verify_reports_fails(database: Database, statement: str, difference: str) -> None:
    drift.run(database, statement)
    assert drift.drift_report(database).findings != []
    with pytest.raises(CommandError, match=difference):
        check(database)


def test_check_on_connection_of_the_caller_compares(database: Database) -> None:
    drift.run(database, *OBJECTS_OF_APPLICATIONS["foreign key"].split(";"))
    config = migrations.alembic_config()
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.check(config)
        drift.run(database, DRIFT["missing index"][0])
        with pytest.raises(CommandError, match="idx_data_sources_status"):
            command.check(config)


@pytest.mark.parametrize("is_own_schema", [False, True], ids=["extension elsewhere", "tables elsewhere"])
@pytest.mark.parametrize("name", ["extensions", 'Own "1"'])
def test_check_with_extension_outside_search_path_compares_vectors(
    empty_database: Database, name: str, *, is_own_schema: bool
) -> None:
    schema, extension_schema = (name, "public") if is_own_schema else ("public", name)
    drift.run(
        empty_database, f"CREATE SCHEMA {quote(name)}", f"CREATE EXTENSION vector SCHEMA {quote(extension_schema)}"
    )
    path = f"{quote(schema)}, {quote(extension_schema)}"
    database_name = quote(empty_database.name)
    drift.run(empty_database, f"ALTER DATABASE {database_name} SET search_path = {path}")
    migrations.upgrade(url=empty_database.url)
    drift.run(empty_database, f"ALTER DATABASE {database_name} SET search_path = {quote(schema)}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(empty_database)
        drift.run(
            empty_database,
            "DROP INDEX idx_text_summary_embedding",
            f"ALTER TABLE text_summary ALTER embedding TYPE {quote(extension_schema)}.vector(3)",
        )
        with pytest.raises(CommandError, match=r"modify_type.*embedding.*VECTOR\(dim=3\)"):
            check(empty_database)


def test_autogenerate_leaves_objects_of_applications(database: Database, project: Project) -> None:
    for name in ("index", "column", "foreign key", "table", "vector index of another method"):
        drift.run(database, *OBJECTS_OF_APPLICATIONS[name].split(";"))
    before = schema(database)
    revision = project.autogenerate()
    assert revision.count("    pass") == 2
    project.run_revision(AFTER_HEAD, HEAD)
    assert schema(database) == before


def test_autogenerated_revision_adds_columns_of_every_own_type_and_indexes(
    database: Database, project: Project
) -> None:
    before, enums = schema(database), database.query(ENUMS)
    revision = project.autogenerate(
        "from enum import StrEnum",
        'mood = ExactEnum(StrEnum("Mood", {"GOOD": "it\'s good: 5%", "BAD": "bad"}), "mood")',
        *(f"table.append_column(Column('new_{number}', {type_}))" for number, type_ in enumerate(OWN_TYPES)),
        "Index('idx_clusters_number', table.c.new_0)",
        "Index('idx_clusters_embedding', table.c.new_9, postgresql_using='hnsw',"
        " postgresql_ops={'new_9': 'vector_cosine_ops'})",
    )
    assert "syntegra_db.models" not in revision
    assert "import pgvector.sqlalchemy\n" in revision
    assert "sa.Column('new_9', pgvector.sqlalchemy.VECTOR(dim=384), nullable=True)" in revision
    project.run_revision(AFTER_HEAD)
    columns = database.query(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'clusters'::regclass AND attname LIKE 'new%' ORDER BY attnum"
    )
    assert [name for (name,) in columns] == list(OWN_TYPES.values())
    assert len(schema(database)) == len(before) + len(OWN_TYPES) + 2
    assert len(database.query(ENUMS)) == len(enums) + 1
    project.run_revision(HEAD)
    assert (schema(database), database.query(ENUMS)) == (before, enums)


def test_autogenerated_revision_drops_tables_and_creates_them_again(database: Database, project: Project) -> None:
    before, enums = schema(database), database.query(ENUMS)
    revision = project.autogenerate(
        *(f"Base.metadata.remove(Base.metadata.tables['{name}'])" for name in ("text_summary", "anomaly_log"))
    )
    assert "pgvector.sqlalchemy.VECTOR(dim=384)" in revision
    project.run_revision(AFTER_HEAD)
    assert database.query(ENUMS) == [("trend_status",)]
    project.run_revision(HEAD)
    assert {row[:2] for row in schema(database)} == {row[:2] for row in before}
    assert database.query(ENUMS) == enums
