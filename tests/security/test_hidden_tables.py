"""Tables in a schema that the role may not use are not taken for missing, and names are printed without their code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from support import psql
from support.commands import run
from support.legacy_databases import execute
from syntegra_db import migrations
from syntegra_db.errors import RevisionError, TablesInOtherSchema
from syntegra_db.migrations import render_sql_script
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database, Server

ROLE = "syntegra_newcomer"
OWNER = "syntegra_mallory"
# The search_path, and whether the version table is there.
LAYOUTS = {
    "before": ("locked,public", True),
    "before, made by hand": ("locked,public", False),
    "after": ("public,locked", True),
    "after, made by hand": ("public,locked", False),
    "not on the path": ("public", True),
}
AWKWARD = ["line\nbreak", "esc\x1b[31m", "bidi\u202ex", 'quote"\n\\x']


def hide_tables(database: Database, *, has_version_table: bool = True) -> None:
    execute(database, "CREATE SCHEMA locked; CREATE EXTENSION vector SCHEMA public")
    migrations.upgrade(url=database.url, schema="locked")
    execute(database, f"GRANT CREATE ON SCHEMA public TO {ROLE}")
    if not has_version_table:
        execute(database, "DROP TABLE locked.alembic_version")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hidden_tables_are_refused_with_grant_that_works(
    server: Server, empty_database: Database, tmp_path: Path, layout: str
) -> None:
    path, has_version_table = LAYOUTS[layout]
    database = empty_database
    with server.role(ROLE):
        hide_tables(database, has_version_table=has_version_table)
        url = database.url_as(ROLE)
        grant = f"GRANT USAGE ON SCHEMA locked TO {ROLE};"
        with pytest.raises(RevisionError, match=re.escape(grant)):
            migrations.upgrade(url=url.update_query_string(f"options=-csearch_path%3D{path}"))
        script = render_sql_script("001").text
        error = psql.feed(url, script, tmp_path, search_path=path).stderr
        assert "are in schema locked" in error
        assert grant in error
        assert database.query("SELECT to_regclass('public.data_sources')") == [(None,)]
        setting = "SET syntegra_db.schema = public;"
        assert psql.feed(url, setting + script, tmp_path, search_path=path).stderr == ""
        execute(database, f"DROP OWNED BY {ROLE} CASCADE")


@pytest.mark.parametrize("owned", ["ALTER SCHEMA app OWNER TO", "ALTER TABLE app.data_sources OWNER TO"])
def test_owner_of_the_other_schema_is_named(
    server: Server, empty_database: Database, tmp_path: Path, owned: str
) -> None:
    database = empty_database
    with server.role(OWNER):
        execute(database, "CREATE SCHEMA app; CREATE SCHEMA later")
        migrations.upgrade("001", url=database.url, schema="app")
        execute(database, f"{owned} {OWNER}")
        url = database.url.update_query_string("options=-csearch_path%3Dlater")
        with pytest.raises(TablesInOtherSchema, match=rf"are in schema app \(of role {OWNER}\), but"):
            migrations.upgrade(url=url)
        error = psql.feed(database.url, render_sql_script("001").text, tmp_path, search_path="later").stderr
        assert f"are in schema app (of role {OWNER}), but" in error
        execute(database, f"DROP OWNED BY {OWNER} CASCADE")


@pytest.mark.parametrize("name", AWKWARD)
def test_names_are_escaped_in_messages_of_a_file(empty_database: Database, tmp_path: Path, name: str) -> None:
    database, script = empty_database, render_sql_script("001").text
    for schema in ("later", name):
        database.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    migrations.upgrade("001", url=database.url, schema=name)
    error = psql.feed(database.url, script, tmp_path, search_path="later").stderr
    assert f"are in schema {quote(name)}, but" in error
    assert name not in error
    use = re.search(r"(SET search_path = .*?;) or", error)
    assert use is not None, error
    again = psql.feed(database.url, f"{use[1]}\n{script}", tmp_path, search_path="later")
    assert "already applied" in again.stderr
    back = sql.SQL("SET search_path = {};").format(sql.Identifier(name)).as_string()
    second = psql.feed(database.url, f"{back}\nDROP TABLE alembic_version, data_sources;", tmp_path)
    migrations.upgrade("001", url=database.url, schema="later")
    refused = psql.feed(database.url, f"{back}\n{script}", tmp_path).stderr
    assert second.returncode == 0
    assert name not in refused
    setting = re.search(r"(SET syntegra_db.schema = .*;)", refused)
    assert setting is not None, refused
    assert psql.feed(database.url, f"{back}\n{setting[1]}\n{script}", tmp_path).stderr == ""


@pytest.mark.long
@pytest.mark.parametrize("name", AWKWARD)
def test_names_are_escaped_in_the_output_of_commands(server: Server, migrated_template: str, name: str) -> None:
    with server.database(migrated_template, name=f"syntegra_{name}") as database:
        database.execute(sql.SQL("ALTER SCHEMA public RENAME TO {}").format(sql.Identifier(name)))
        path = sql.SQL("ALTER DATABASE {} SET search_path = {}")
        database.execute(path.format(sql.Identifier(database.name), sql.Identifier(name)))
        for command in ("status", "upgrade", "verify", "adopt"):
            result = run("syntegra-db", command, url=database.environment_url)
            assert result.returncode == 0, result.stderr
            assert name not in result.stdout + result.stderr
