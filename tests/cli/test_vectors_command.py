"""`syntegra-db vectors` as an operator meets it: what it says, and how it exits."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from vectors.texts import fill

from support.commands import run, succeed
from syntegra_db import migrations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database, Server

INDEX = "idx_text_summary_embedding"


@pytest.fixture(scope="module")
def filled(server: Server, migrated_template: str) -> Iterator[Database]:
    with server.database(migrated_template, name="syntegra_test_vectors_command") as database:
        fill(database, 2_000, {})
        yield database


def test_status_of_an_index_that_came_with_the_empty_table(filled: Database) -> None:
    said = succeed("syntegra-db", "vectors", "status", "--seconds", "3", url=filled.environment_url)
    assert "Index: ivfflat, lists = 100, full precision, " in said
    assert "Rows with an embedding: about 2,000; when the index was built: none" in said
    assert re.search(r"A search that compares all rows: [\d.]+ ms\n", said)
    assert said.endswith("Nothing to do: up to 25,000 rows, a search compares all of them, as fast.\n")
    advice = succeed("syntegra-db", "status", url=filled.environment_url)
    assert "Rebuild it: syntegra-db vectors rebuild" in advice


def test_rebuild_says_before_what_it_takes_and_after_what_it_found(server: Server, filled: Database) -> None:
    with server.database(filled.name) as database:
        url = database.environment_url
        done = run("syntegra-db", "vectors", "rebuild", "--lists", "20", "--half", "--recall", "0.8", url=url)
        assert done.returncode == 0, done.stderr
        before = (
            r"Building an ivfflat index in half precision with 20 lists on 2,000 embeddings, with up to 96 MB of memory"
        )
        assert re.search(before, done.stderr)
        assert "building index: loading tuples" in done.stderr or "new index is in place" in done.stderr
        first, second = done.stdout.splitlines()
        assert first.startswith("Rebuilt: an ivfflat index in half precision with 20 lists on 2,000 rows, ")
        assert re.fullmatch(
            r"Recall 0\.[89]\d+ with ivfflat\.probes = \d+: [\d.]+ ms, "
            r"[\d.]+ times as fast as comparing all rows",
            second,
        )
        condition = json.loads(succeed("syntegra-db", "vectors", "status", "--json", "--seconds", "2", url=url))
        assert condition["built_on"] == 2_000
        assert condition["shape"]["options"] == {"lists": 20}
        assert condition["shape"]["is_half"] is True
        assert condition["command"] is None
        assert "The vector index was built on 2,000 rows." in succeed("syntegra-db", "status", url=url)
        assert succeed("syntegra-db", "verify", url=url)


def test_an_interrupted_index_is_not_for_reindex(server: Server, filled: Database) -> None:
    with server.database(filled.name) as database:
        database.execute(
            f"CREATE INDEX {INDEX}_new ON text_summary USING hnsw (embedding vector_cosine_ops);"
            f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{INDEX}_new'::regclass"
        )
        said = succeed("syntegra-db", "status", url=database.environment_url)
        assert f"Invalid index: {INDEX}_new. Rebuild it: syntegra-db vectors rebuild" in said
        said = succeed("syntegra-db", "vectors", "status", "--seconds", "1", url=database.environment_url)
        assert f"Left by a rebuild that was interrupted, or is running: {INDEX}_new" in said


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
def test_wrong_usage_is_exit_status_2(arguments: tuple[str, ...], filled: Database) -> None:
    assert run("syntegra-db", "vectors", "rebuild", *arguments, url=filled.environment_url).returncode == 2


def test_too_little_memory_is_exit_status_27_and_one_line(filled: Database) -> None:
    result = run("syntegra-db", "vectors", "rebuild", "--memory", "2048kB", url=filled.environment_url)
    assert result.returncode == 27, result.stderr
    assert [line for line in result.stderr.splitlines() if line.startswith("Error: ")] == result.stderr.splitlines()[
        -1:
    ]
    assert "2 MB that --memory allows" in result.stderr


def test_no_rows_and_an_older_revision_are_one_line(empty_database: Database) -> None:
    migrations.upgrade("002", empty_database.url)
    for command in ("status", "rebuild"):
        result = run("syntegra-db", "vectors", command, url=empty_database.environment_url)
        assert (result.returncode, result.stderr.count("\n")) == (9, 1), result.stderr
    migrations.upgrade("head", empty_database.url)
    assert "Nothing to do" in succeed("syntegra-db", "vectors", "status", url=empty_database.environment_url)
    result = run("syntegra-db", "vectors", "rebuild", url=empty_database.environment_url)
    assert (result.returncode, result.stderr.count("\n")) == (26, 1), result.stderr
