"""`syntegra-db vectors`: its output and its exit statuses."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from support.commands import run, succeed
from support.texts import load_texts
from syntegra_db import migrations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database, Server

INDEX = "idx_text_summary_embedding"


@pytest.fixture(scope="module")
def loaded(server: Server, migrated_template: str) -> Iterator[Database]:
    with server.database(migrated_template, name="syntegra_test_vectors_command") as database:
        load_texts(database, 2_000, {})
        yield database


def test_status_of_index_created_with_empty_table(loaded: Database) -> None:
    output = succeed("syntegra-db", "vectors", "status", "--seconds", "3", url=loaded.environment_url)
    assert "Index: ivfflat, lists = 100, full precision, " in output
    assert "Rows with an embedding: about 2,000; when the index was built: 0\n" in output
    assert re.search(r"Exact search: [\d.]+ ms\n", output)
    assert output.endswith("No action needed: up to 25,000 rows, an exact search is as fast.\n")
    advice = succeed("syntegra-db", "status", url=loaded.environment_url)
    assert "rebuild" not in advice.lower()


def test_rebuild_reports_resources_before_and_recall_after(server: Server, loaded: Database) -> None:
    with server.database(loaded.name) as database:
        url = database.environment_url
        result = run("syntegra-db", "vectors", "rebuild", "--lists", "20", "--half", "--recall", "0.8", url=url)
        assert result.returncode == 0, result.stderr
        before = (
            r"Building an ivfflat index in half precision with 20 lists on 2,000 embeddings, with up to 96 MB of memory"
        )
        assert re.search(before, result.stderr)
        assert "building index: loading tuples" in result.stderr or "new index is in use" in result.stderr
        first, second, *defaults = result.stdout.splitlines()
        assert first.startswith("Rebuilt: an ivfflat index in half precision with 20 lists on 2,000 rows, ")
        assert re.fullmatch(
            r"Recall 0\.[89]\d+ with ivfflat\.probes = \d+; "
            r"up to 25,000 rows, a `search` is exact and does not use the index",
            second,
        )
        assert defaults[0].startswith("Plain SQL searches with the server's settings. For ")
        status = succeed("syntegra-db", "vectors", "status", "--json", "--seconds", "2", url=url)
        (health,) = json.loads(status)["indexes"]
        assert health["rows_at_build"] == 2_000
        assert health["definition"]["options"] == {"lists": 20}
        assert health["definition"]["is_half"] is True
        assert health["command"] is None
        assert "The vector index was built on 2,000 rows." in succeed("syntegra-db", "status", url=url)
        assert succeed("syntegra-db", "verify", url=url)


def test_status_with_interrupted_index_recommends_rebuild(server: Server, loaded: Database) -> None:
    with server.database(loaded.name) as database:
        database.execute(
            f"CREATE INDEX {INDEX}_new ON text_summary USING hnsw (embedding vector_cosine_ops);"
            f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{INDEX}_new'::regclass"
        )
        output = succeed("syntegra-db", "status", url=database.environment_url)
        assert f"Invalid index: {INDEX}_new. Rebuild it: syntegra-db vectors rebuild" in output
        output = succeed("syntegra-db", "vectors", "status", "--seconds", "1", url=database.environment_url)
        assert f"Left by an interrupted or running rebuild: {INDEX}_new" in output


@pytest.mark.parametrize(
    "arguments",
    [
        ("--memory", "plenty"),
        ("--memory", "0MB"),
        ("--method", "btree"),
        ("--method", "hnsw", "--lists", "10"),
        ("--lists", "0"),
        ("--recall", "1.1"),
        ("--workers", "-1"),
    ],
)
def test_wrong_usage_exits_2(arguments: tuple[str, ...], loaded: Database) -> None:
    assert run("syntegra-db", "vectors", "rebuild", *arguments, url=loaded.environment_url).returncode == 2


def test_too_little_memory_exits_27_with_one_line(loaded: Database) -> None:
    result = run("syntegra-db", "vectors", "rebuild", "--memory", "2048kB", url=loaded.environment_url)
    assert result.returncode == 27, result.stderr
    assert [line for line in result.stderr.splitlines() if line.startswith("Error: ")] == result.stderr.splitlines()[
        -1:
    ]
    assert "2 MB that --memory allows" in result.stderr


@pytest.mark.long
def test_older_revision_and_empty_table_exit_with_one_line(empty_database: Database) -> None:
    migrations.upgrade("002", empty_database.url)
    for command in ("status", "rebuild"):
        result = run("syntegra-db", "vectors", command, url=empty_database.environment_url)
        assert (result.returncode, result.stderr.count("\n")) == (9, 1), result.stderr
    migrations.upgrade("head", empty_database.url)
    assert "No action needed" in succeed("syntegra-db", "vectors", "status", url=empty_database.environment_url)
    result = run("syntegra-db", "vectors", "rebuild", url=empty_database.environment_url)
    assert (result.returncode, result.stderr.count("\n")) == (26, 1), result.stderr
