"""The index of a second embedding: `vectors rebuild`, `vectors status` and `verify` keep both apart."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, LiteralString

import pytest

from support.revisions import AFTER_HEAD
from support.sample_rows import load_rows
from support.second_embedding import BOTH, INDEXES, MIN_RECALL, SEARCH, SECOND, add_embedding, run_program

if TYPE_CHECKING:
    from support.checkouts import Checkout
    from support.servers import Database, Server

pytestmark = pytest.mark.long
CALIBRATED: LiteralString = f"SELECT obj_description('{SECOND}'::regclass, 'pg_class') LIKE '%syntegra_db%'"
REBUILD = """
import logging, sys
from syntegra_db.database import create_engine
from syntegra_db.vectors.maintenance import RebuildOptions, rebuild
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
options = RebuildOptions({options})
rebuild(create_engine(), options, embedding="{embedding}", calibration_seconds=0.5)
"""


def rebuild(checkout: Checkout, database: Database, embedding: str, options: str = "") -> str:
    """Rebuild with a short calibration, and return the log."""
    program = REBUILD.format(options=options, embedding=embedding)
    result = run_program(checkout, program, database)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_rebuild_builds_the_index_of_the_named_column_only(evolved: Checkout, loaded: Database) -> None:
    for options in ((), ("--column", "language")):
        rejected = evolved.run("syntegra-db", "vectors", "rebuild", *options, database=loaded)
        assert rejected.returncode == 2
        words = " ".join(re.sub(r"[│╭╮╰╯─]", " ", rejected.stderr).split())
        assert "embedding, embedding_768" in words
        assert "nothing was changed" in words
    first = loaded.query("SELECT 'idx_text_summary_embedding'::regclass::oid")
    for arguments, method, definition in (
        ("", "hnsw", "hnsw (embedding_768 vector_cosine_ops) WITH (ef_construction='128')"),
        ("half=True", "hnsw", "hnsw (((embedding_768)::halfvec(768)) halfvec_cosine_ops)"),
        ('method="ivfflat", half=False, lists=30', "ivfflat", "ivfflat (embedding_768 vector_cosine_ops)"),
    ):
        assert "3,000 embeddings of text_summary.embedding_768" in rebuild(
            evolved, loaded, "text_summary.embedding_768", arguments
        )
        assert loaded.query(INDEXES) == [BOTH[0], (SECOND, method, True)]
        [(installed,)] = loaded.query(f"SELECT pg_get_indexdef('{SECOND}'::regclass)")
        assert definition in installed
        assert loaded.query(CALIBRATED) == [(True,)]
        evolved.succeed("syntegra-db", "verify", database=loaded)
        evolved.succeed("alembic", "check", database=loaded)
        searched = run_program(evolved, SEARCH, loaded)
        assert searched.returncode == 0, searched.stderr
        assert json.loads(searched.stdout)["recalls"]["embedding_768"] >= MIN_RECALL
    assert loaded.query("SELECT 'idx_text_summary_embedding'::regclass::oid") == first


def test_status_shows_each_embedding_and_its_command(evolved: Checkout, loaded: Database) -> None:
    arguments = ("syntegra-db", "vectors", "status", "--seconds", "2")
    output = evolved.succeed(*arguments, database=loaded)
    assert re.findall(r"^text_summary\.\w+$", output, re.MULTILINE) == [
        "text_summary.embedding",
        "text_summary.embedding_768",
    ]
    reports = json.loads(evolved.succeed(*arguments, "--json", database=loaded))["indexes"]
    assert [report["index"] for report in reports] == ["idx_text_summary_embedding", SECOND]
    (one,) = json.loads(evolved.succeed(*arguments, "--json", "--column", "embedding_768", database=loaded))["indexes"]
    assert (one["column"], one["rows"]) == ("text_summary.embedding_768", 3_000)
    loaded.execute(f"ALTER INDEX {SECOND} RENAME TO {SECOND}_old")
    output = evolved.succeed(*arguments, "--column", "embedding_768", database=loaded)
    assert f"Index: {SECOND} is missing" in output
    assert output.endswith("  syntegra-db vectors rebuild --column embedding_768\n")
    loaded.execute(f"ALTER INDEX {SECOND}_old RENAME TO {SECOND}")
    status = json.loads(evolved.succeed("syntegra-db", "status", "--json", database=loaded))
    assert status["vector_indexes"].keys() == {"text_summary.embedding", "text_summary.embedding_768"}


def test_rebuild_of_the_first_keeps_a_second_named_like_its_new_index(
    checkout: Checkout, server: Server, database: Database
) -> None:
    add_embedding(checkout, "embedding_new", 16)
    checkout.add_revision(
        AFTER_HEAD,
        """
        op.add_column("text_summary", sa.Column("embedding_new", pgvector.sqlalchemy.VECTOR(16)))
        op.execute("ALTER TABLE text_summary ALTER COLUMN embedding_new SET STORAGE PLAIN")
        op.create_index_online("idx_text_summary_embedding_new", "text_summary", ["embedding_new"],
            postgresql_using="hnsw", postgresql_ops={"embedding_new": "vector_cosine_ops"})
        """,
        """
        op.drop_index_online("idx_text_summary_embedding_new", "text_summary")
        op.drop_column("text_summary", "embedding_new")
        """,
    )
    load_rows(database, 3_000)
    checkout.migrate(server, database)
    database.execute("UPDATE text_summary SET embedding_new = subvector(embedding, 1, 16)")
    second = database.query("SELECT 'idx_text_summary_embedding_new'::regclass::oid")
    rebuild(checkout, database, "embedding")
    assert database.query("SELECT 'idx_text_summary_embedding_new'::regclass::oid") == second
    rebuild(checkout, database, "embedding_new")
    checkout.succeed("syntegra-db", "verify", database=database)


def test_verify_reports_an_index_of_the_other_column_and_of_another_operator_class(
    evolved: Checkout, database: Database
) -> None:
    evolved.succeed("syntegra-db", "upgrade", database=database)
    for definition in (
        "hnsw (embedding vector_cosine_ops)",
        "hnsw (embedding_768 vector_l2_ops)",
        "hnsw ((embedding_768::halfvec(768)) halfvec_l2_ops)",
    ):
        database.execute(f"DROP INDEX {SECOND}; CREATE INDEX {SECOND} ON text_summary USING {definition}")
        verified = evolved.run("syntegra-db", "verify", database=database)
        assert verified.returncode == 1, verified.stdout
        assert f"index {SECOND}" in verified.stdout
