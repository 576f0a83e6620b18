"""Undo, backup, rollback, restore and adoption keep both embeddings and both indexes."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from support.evolutions import EVOLUTIONS
from support.revisions import AFTER_HEAD, HEAD, revision_of
from support.sample_rows import load_rows, row_digests
from support.second_embedding import BOTH, INDEXES, SECOND

if TYPE_CHECKING:
    from support.checkouts import Checkout
    from support.servers import Database, Server

pytestmark = pytest.mark.long
FILL: LiteralString = "UPDATE text_summary SET embedding_768 = (embedding || (embedding + embedding))::vector(768)"
HALF: LiteralString = f"""DROP INDEX {SECOND}; CREATE INDEX {SECOND} ON text_summary
    USING ivfflat ((embedding_768::halfvec(768)) halfvec_cosine_ops) WITH (lists = 20)"""


def test_interrupted_upgrade_is_undone(checkout: Checkout, server: Server, database: Database) -> None:
    upgrade, downgrade = EVOLUTIONS["second embedding"]
    failing = '\n        op.create_index_online("idx_twice", "text_summary", ["client_id"], unique=True)\n'
    dropping = '\n        op.drop_index_online("idx_twice", "text_summary")' + downgrade
    checkout.add_revision(AFTER_HEAD, upgrade + failing, dropping)
    checkout.write_manifests(server)
    load_rows(database, 1_000)
    before = row_digests(database)
    result = checkout.run("syntegra-db", "upgrade", database=database)
    assert result.returncode == 11, result.stderr
    checkout.succeed("syntegra-db", "verify", database=database)
    result = checkout.run("syntegra-db", "downgrade", "-1", database=database)
    assert result.returncode == 0, result.stderr
    assert row_digests(database) == before
    checkout.succeed("syntegra-db", "verify", database=database)


def texts(database: Database) -> dict[str, Any]:
    return row_digests(database, "text_summary")


@pytest.mark.parametrize("second", ["hnsw", "ivfflat in half precision"])
def test_backup_rollback_and_restores_keep_both_embeddings_and_indexes(
    evolved: Checkout, database: Database, empty_database: Database, second: str
) -> None:
    load_rows(database, 2_000)
    evolved.succeed("syntegra-db", "upgrade", database=database)
    database.execute(FILL)
    if second != "hnsw":
        database.execute(HALF)
    rows, indexes = texts(database), database.query(INDEXES)
    path = evolved.folder / f"{second}.dump"
    evolved.succeed("syntegra-db", "backup", "--output", str(path), database=database)
    printed = evolved.succeed("syntegra-db", "rollback", HEAD, database=database).splitlines()[-1]
    assert revision_of(database) == HEAD
    evolved.succeed("syntegra-db", *shlex.split(printed)[1:], database=database)
    assert (texts(database), database.query(INDEXES)) == (rows, BOTH)
    evolved.succeed("syntegra-db", "verify", database=database)
    evolved.succeed("syntegra-db", "restore", str(path), database=empty_database)
    assert (texts(empty_database), empty_database.query(INDEXES)) == (rows, BOTH)
    evolved.succeed("syntegra-db", "verify", database=empty_database)
    if second != "hnsw":
        database.execute(HALF)
    evolved.succeed("syntegra-db", "restore", str(path), "--replace", database=database)
    assert (texts(database), database.query(INDEXES)) == (rows, indexes)


@pytest.mark.parametrize(
    "method", ["hnsw (embedding_768 vector_cosine_ops)", "ivfflat (embedding_768 vector_cosine_ops)"]
)
def test_adoption_renames_the_index_of_each_column(
    evolved: Checkout, database: Database, method: LiteralString
) -> None:
    load_rows(database, 1_000)
    evolved.succeed("syntegra-db", "upgrade", database=database)
    database.execute(FILL)
    database.execute(f"DROP INDEX {SECOND}; CREATE INDEX own_second ON text_summary USING {method}")
    database.execute("ALTER INDEX idx_text_summary_embedding RENAME TO own_first; DROP TABLE alembic_version")
    rows = texts(database)
    plan = evolved.succeed("syntegra-db", "adopt", database=database)
    assert f"{SECOND} ← named own_second\n" in plan
    evolved.succeed("syntegra-db", "adopt", "--apply", database=database)
    assert revision_of(database) == AFTER_HEAD
    assert texts(database) == rows
    assert [name for name, _, _ in database.query(INDEXES)] == [name for name, _, _ in BOTH]
    evolved.succeed("syntegra-db", "verify", database=database)
