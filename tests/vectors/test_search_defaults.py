"""The settings that a rebuild stores in the database, with which plain SQL finds what `search` finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from support.commands import run, succeed
from support.rebuild import QUICK, SPECS, only_index, options_for
from support.texts import load_texts
from syntegra_db import migrations
from syntegra_db.connections import conninfo, unpooled_engine
from syntegra_db.errors import RebuildFailed
from syntegra_db.vectors.maintenance import RebuildOptions, rebuild

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database, Server
    from support.texts import Texts, Vectors
    from syntegra_db.vectors.maintenance._resources import IndexSpec

ROLE = "syntegra_test_owner"
# As a report does: no setting, and no other plan.
NEAREST = "SELECT id FROM text_summary WHERE {filter} ORDER BY embedding <=> %s::vector LIMIT 10"
SETTINGS = """SELECT split_part(setting, '=', 1) AS name, split_part(setting, '=', 2) FROM pg_db_role_setting
    JOIN pg_database ON pg_database.oid = setdatabase, unnest(setconfig) AS setting
    WHERE datname = current_database() ORDER BY name"""


@pytest.fixture
def owned(server: Server, empty_database: Database) -> Iterator[Database]:
    """A database with 1,000 texts, whose owner is no superuser."""
    with server.role(ROLE) as role:
        empty_database.execute("CREATE EXTENSION vector")
        empty_database.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(empty_database.name), sql.Identifier(role))
        )
        migrations.upgrade(url=empty_database.url_as(role))
        load_texts(empty_database, 1_000, {})
        try:
            yield empty_database
        finally:
            empty_database.execute(f"DROP OWNED BY {ROLE}")
            server.execute(
                sql.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(sql.Identifier(empty_database.name))
            )


@pytest.mark.parametrize("spec", [SPECS[0][0], SPECS[2][0]], ids=["ivfflat", "hnsw"])
def test_stored_defaults_give_plain_sql_the_measured_recall(
    loaded: Database, loaded_template: tuple[str, Texts], spec: IndexSpec
) -> None:
    texts = loaded_template[1]
    before = rebuild(loaded.engine, options_for(spec), calibration_seconds=3)
    assert before.defaults is not None
    assert not before.defaults.is_stored
    assert loaded.query(SETTINGS) == []
    result = rebuild(loaded.engine, calibration_seconds=3, set_defaults=True)
    assert result.selected is not None
    assert result.defaults is not None
    assert result.defaults.is_stored
    assert dict(loaded.query(SETTINGS)) == result.defaults.settings
    assert str(result.selected.setting) in result.defaults.settings.values()
    found = [len(set(ids) & set(texts.nearest(query))) for query, ids in run_reports(loaded, texts, "true")]
    assert sum(found) / (10 * len(found)) >= 0.9
    rare = [len(ids) for _, ids in run_reports(loaded, texts, "sentiment = 'negative'")]
    assert rare == [10] * len(rare)


def run_reports(database: Database, texts: Texts, condition: str) -> Iterator[tuple[Vectors, list[int]]]:
    """Yield each query with the rows that plain SQL finds in a new session, by an index scan."""
    statement = NEAREST.format(filter=condition)
    with psycopg.connect(conninfo(database.url)) as connection:
        connection.execute("SET enable_seqscan = off; SET enable_sort = off")
        for query in texts.queries:
            vector = str(query.tolist())
            if query is texts.queries[0]:
                plan = connection.execute(f"EXPLAIN {statement}", [vector]).fetchall()
                assert any("Index Scan using idx_text_summary_embedding" in line for (line,) in plan)
            yield query, [row[0] for row in connection.execute(statement, [vector])]


@pytest.mark.long
def test_undo_restores_the_settings_before(loaded: Database) -> None:
    name = sql.Identifier(loaded.name)
    loaded.execute(
        sql.SQL(
            "SELECT '[1]'::vector; ALTER DATABASE {0} SET ivfflat.probes = 3; ALTER DATABASE {0} SET work_mem = '5MB'"
        ).format(name)
    )
    before = loaded.query(SETTINGS)
    first = rebuild(loaded.engine, RebuildOptions(lists=10), calibration_seconds=QUICK, set_defaults=True)
    assert loaded.query(SETTINGS) != before
    assert first.defaults is not None
    for statement in first.defaults.undo:
        loaded.execute(statement)
    assert loaded.query(SETTINGS) == before


@pytest.mark.long
def test_printed_statements_run_as_owner_who_is_no_superuser(owned: Database) -> None:
    url = owned.url_as(ROLE).render_as_string(hide_password=False)
    run_lines(owned, succeed("syntegra-db", "vectors", "rebuild", "--lists", "20", url=url))
    stored = owned.query(SETTINGS)
    assert [name for name, _ in stored] == ["ivfflat.iterative_scan", "ivfflat.probes"]
    printed = succeed("syntegra-db", "vectors", "rebuild", "--set-defaults", url=url)
    assert "To undo this, run:\n" in printed
    run_lines(owned, printed)
    assert owned.query(SETTINGS) == stored


def run_lines(database: Database, output: str) -> None:
    """Run the printed statements in one new session of the owner, as pasted into psql."""
    statements = [line for line in output.splitlines() if line.startswith("  ")]
    assert len(statements) == 3
    with psycopg.connect(conninfo(database.url_as(ROLE)), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.long
def test_owner_of_the_tables_only_is_refused_before_the_build(server: Server, owned: Database) -> None:
    server.execute(sql.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(sql.Identifier(owned.name)))
    owned.execute(f"GRANT CREATE ON SCHEMA public TO {ROLE}")
    before = owned.query("SELECT pg_relation_filenode('idx_text_summary_embedding')")
    with pytest.raises(RebuildFailed, match=f"Role {ROLE} does not own the database .* Leave out --set-defaults"):
        rebuild(unpooled_engine(owned.url_as(ROLE)), set_defaults=True, calibration_seconds=QUICK)
    assert owned.query("SELECT pg_relation_filenode('idx_text_summary_embedding')") == before
    url = owned.url_as(ROLE).render_as_string(hide_password=False)
    refused = run("syntegra-db", "vectors", "rebuild", "--set-defaults", url=url)
    assert (refused.returncode, refused.stdout) == (RebuildFailed.exit_status, "")
    assert "nothing was changed. Leave out --set-defaults" in refused.stderr
    rebuild(unpooled_engine(owned.url_as(ROLE)), calibration_seconds=QUICK)
    assert only_index(owned).is_calibration_current
