"""The rebuild of the vector index: its result, also after an interrupted run."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

import pytest
from psycopg import sql
from sqlalchemy import text

from support.embeddings import EMBEDDING, NEW_INDEX, OLD_INDEX
from support.rebuild import QUICK, ROWS, SPECS, only_index, options_for
from support.texts import load_texts
from syntegra_db.binary_vectors import enable_binary_vectors
from syntegra_db.catalog import verify
from syntegra_db.connections import unpooled_engine
from syntegra_db.errors import InsufficientResources, RebuildFailed
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors._index import VectorIndex, read_primary_index
from syntegra_db.vectors._statements import index_statement
from syntegra_db.vectors.maintenance import RebuildOptions, rebuild
from syntegra_db.vectors.maintenance._build import index_validity
from syntegra_db.vectors.maintenance._ground_truth import force_index_scan
from syntegra_db.vectors.maintenance._resources import IndexSpec

if TYPE_CHECKING:
    from support.servers import Database, Server
    from support.texts import Texts


@pytest.mark.parametrize(("spec", "definition"), SPECS)
def test_rebuild_installs_calibrated_index_that_searches_use(
    loaded: Database, loaded_template: tuple[str, Texts], spec: IndexSpec, definition: str
) -> None:
    result = rebuild(loaded.engine, options_for(spec), recall=0.9, calibration_seconds=3)
    index = only_index(loaded)
    assert (index.method, index.lists, index.is_half) == astuple(spec)
    assert (index.calibration, index.is_calibration_current) == (result.calibration, True)
    assert (result.rows, result.calibration.recall) == (ROWS, 0.9)
    assert result.selected is not None
    assert result.selected.recall[0] >= 0.9
    with loaded.engine.connect() as connection:
        report = verify(connection)
        assert report.findings == []
        assert [(note.object, note.found) for note in report.notes] == [(f"index {VECTOR_INDEX}", definition)]
    texts = loaded_template[1]
    assert measure_recall(loaded, index, texts, result.selected.setting) >= 0.85


def measure_recall(database: Database, index: VectorIndex, texts: Texts, setting: int) -> float:
    """The mean recall at ten rows of index scans, which the plan must contain."""
    statement = index_statement(EMBEDDING, (), is_half=index.is_half)
    hits = 0
    with database.engine.connect() as connection, force_index_scan(connection, index, setting):
        plan = connection.scalars(
            text(f"EXPLAIN {statement}"), {"query": str(texts.queries[0].tolist()), "limit": 10}
        ).all()
        assert any(f"Index Scan using {VECTOR_INDEX} " in line for line in plan)
        for query in texts.queries:
            found = connection.execute(statement, {"query": query, "limit": 10}).all()
            hits += len({row[0] for row in found} & set(texts.nearest(query)))
    return hits / (10 * len(texts.queries))


def test_rebuild_without_options_keeps_method_and_precision(loaded: Database) -> None:
    rebuild(loaded.engine, RebuildOptions("ivfflat", 7, half=True), calibration_seconds=QUICK)
    result = rebuild(loaded.engine, calibration_seconds=QUICK)
    assert result.spec == IndexSpec("ivfflat", 108, is_half=True)
    assert result.bytes_before > 0
    assert result.bytes_after > 0


def test_rebuild_with_lists_builds_ivfflat(loaded: Database) -> None:
    rebuild(loaded.engine, RebuildOptions("hnsw"), calibration_seconds=QUICK)
    assert rebuild(loaded.engine, RebuildOptions(lists=25), calibration_seconds=QUICK).spec == IndexSpec(
        "ivfflat", 25, is_half=False
    )


@pytest.mark.embedded
def test_rebuild_keeps_tablespace(server: Server, loaded: Database) -> None:
    directory = tempfile.mkdtemp(prefix="sdb-")
    shutil.chown(directory, Path(loaded.query("SHOW data_directory")[0][0]).owner())
    server.execute(sql.SQL("CREATE TABLESPACE syntegra_test_fast LOCATION {}").format(directory))
    try:
        loaded.execute(f"ALTER INDEX {VECTOR_INDEX} SET TABLESPACE syntegra_test_fast")
        rebuild(loaded.engine, calibration_seconds=QUICK)
        found = loaded.query(f"SELECT tablespace FROM pg_indexes WHERE indexname = '{VECTOR_INDEX}'")
        assert found == [("syntegra_test_fast",)]
    finally:
        loaded.execute(f"DROP INDEX {VECTOR_INDEX}")
        server.execute("DROP TABLESPACE syntegra_test_fast")
        shutil.rmtree(directory)


@pytest.mark.long
def test_calibration_is_precise_around_requested_recall(loaded: Database) -> None:
    points = rebuild(
        loaded.engine, RebuildOptions("ivfflat", 200), recall=0.95, calibration_seconds=20
    ).calibration.points
    assert [point.setting for point in points] == sorted({point.setting for point in points})
    recalls = [point.recall for point in points]
    assert recalls == sorted(recalls)
    reached = next(at for at, point in enumerate(points) if point.recall[0] >= 0.95)
    top, bottom = points[reached].setting, points[reached - 1].setting
    # The steps of the sweep are 1.4 apart.
    assert top - bottom == 1 or top < 1.1 * bottom


def test_rebuild_with_unreachable_recall_selects_no_setting(loaded: Database) -> None:
    result = rebuild(loaded.engine, RebuildOptions("ivfflat", 3), recall=0.999, calibration_seconds=QUICK)
    assert result.selected is None
    assert only_index(loaded).calibration == result.calibration


CREATE_SECOND: LiteralString = "CREATE INDEX {} ON text_summary USING hnsw (embedding vector_cosine_ops)"
INVALIDATE: LiteralString = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{}'::regclass"
INTERRUPTIONS: dict[str, tuple[list[str], bool]] = {
    # The statements, and whether one of the indexes works, which then gets the primary name before the build.
    "nothing": ([f"DROP INDEX {VECTOR_INDEX}"], False),
    "half-built": ([CREATE_SECOND.format(NEW_INDEX), INVALIDATE.format(NEW_INDEX)], True),
    "built, not renamed": ([CREATE_SECOND.format(NEW_INDEX)], True),
    "renamed, old one left": ([CREATE_SECOND.format(OLD_INDEX)], True),
    "renamed, old one half-dropped": ([CREATE_SECOND.format(OLD_INDEX), INVALIDATE.format(OLD_INDEX)], True),
    "only the new one": ([f"ALTER INDEX {VECTOR_INDEX} RENAME TO {NEW_INDEX}"], True),
    "only the old one": ([f"ALTER INDEX {VECTOR_INDEX} RENAME TO {OLD_INDEX}"], True),
    "only the old one and a half-built one": (
        [
            f"ALTER INDEX {VECTOR_INDEX} RENAME TO {OLD_INDEX}",
            CREATE_SECOND.format(NEW_INDEX),
            INVALIDATE.format(NEW_INDEX),
        ],
        True,
    ),
    "invalid primary index": (
        [CREATE_SECOND.format(NEW_INDEX), CREATE_SECOND.format(OLD_INDEX), INVALIDATE.format(VECTOR_INDEX)],
        True,
    ),
    "only invalid indexes": (
        [CREATE_SECOND.format(OLD_INDEX), INVALIDATE.format(OLD_INDEX), INVALIDATE.format(VECTOR_INDEX)],
        False,
    ),
}


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
def test_rebuild_recovers_from_interrupted_run(loaded: Database, interruption: str) -> None:
    statements, works = INTERRUPTIONS[interruption]
    with loaded.connect() as connection:
        for statement in statements:
            connection.execute(statement.encode())
    # The recovery comes before the memory check.
    with pytest.raises(InsufficientResources):
        rebuild(loaded.engine, RebuildOptions("ivfflat", memory=2**20))
    with loaded.engine.connect() as connection:
        validity = index_validity(connection, EMBEDDING)
    assert validity.keys() <= {VECTOR_INDEX}
    assert validity.get(VECTOR_INDEX, False) is works
    rebuild(loaded.engine, RebuildOptions("ivfflat"), calibration_seconds=QUICK)
    assert only_index(loaded).is_calibration_current
    with loaded.engine.connect() as connection:
        assert verify(connection).findings == []


def test_rebuild_of_one_row_builds_one_list(database: Database) -> None:
    load_texts(database, 1, {})
    result = rebuild(database.engine, calibration_seconds=QUICK)
    assert (result.spec.lists, result.rows) == (1, 1)


def test_rebuild_with_equivalent_index_names_it_and_keeps_new_index(loaded: Database) -> None:
    loaded.execute("CREATE INDEX other ON text_summary USING hnsw (embedding vector_cosine_ops)")
    with pytest.raises(RebuildFailed, match="another index on the embeddings of text_summary: other"):
        rebuild(loaded.engine, RebuildOptions("ivfflat", 1), calibration_seconds=QUICK)
    assert only_index(loaded).lists == 1


def test_index_replaced_during_calibration_raises(loaded: Database) -> None:
    engine = unpooled_engine(loaded.url)
    enable_binary_vectors(engine)
    with engine.connect() as connection:
        index = read_primary_index(connection, EMBEDDING)
        assert index is not None
        connection.rollback()
        loaded.execute(f"DROP INDEX {VECTOR_INDEX}")
        with pytest.raises(RebuildFailed, match="built or dropped"), force_index_scan(connection, index, 1):
            pass
