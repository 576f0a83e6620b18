"""A checkout whose `TextSummary` has a second embedding, with the revision that `make revision` writes for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from support.checkouts import Checkout

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from support.servers import Database, Server

NAME = "Add a second embedding"
LAST_INDEX = '        {"comment": "Analysed texts'
INDEX = """        Index(
            "{index}",
            "{column}",
            postgresql_using="hnsw",
            postgresql_ops={{"{column}": "vector_cosine_ops"}},
        ),
"""
SOURCE = "    source: Mapped[DataSource | None]"
COLUMN = """    {column}: MappedEmbedding = mapped_column(  # type: ignore[assignment]
        Embedding({dimensions}), comment="Embedding of the text: {dimensions} dimensions, compared by cosine distance"
    )

"""
LISTENER = 'event.listen(TextSummary.__table__, "after_create", _SET_STORAGE_PLAIN)\n'
STORAGE = """event.listen(
    TextSummary.__table__,
    "after_create",
    DDL("ALTER TABLE %(fullname)s ALTER COLUMN {column} SET STORAGE PLAIN"),
)
"""
SECOND = "idx_text_summary_embedding_768"
INDEXES: LiteralString = """SELECT relname::text, amname::text, indisvalid
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
    WHERE relname LIKE 'idx_text_summary_embedding%' ORDER BY 1"""
BOTH = [("idx_text_summary_embedding", "ivfflat", True), (SECOND, "hnsw", True)]
MIN_RECALL = 0.9
# Loads 3,000 texts with both embeddings, whose nearest neighbours differ, and prints what searches find.
LOAD = """
import json
import numpy as np
from sqlalchemy import event, text
from syntegra_db.bulk import copy_rows, upsert_rows
from syntegra_db.database import create_engine, session_factory
from syntegra_db.models import InvalidEmbedding, TextSummary
from syntegra_db.vectors import InvalidSearchArgument, _strategy, nearest, search

ROWS = 3000
_strategy.EXACT_SCAN_MAX_ROWS = 100
random = np.random.default_rng(7)


def units(dimensions, rows):
    centres = np.random.default_rng(dimensions).normal(size=(60, dimensions))
    vectors = centres[random.integers(60, size=rows)] + random.normal(scale=0.8, size=(rows, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


stored = {"embedding": units(384, ROWS), "embedding_768": units(768, ROWS)}
queries = {"embedding": units(384, 20), "embedding_768": units(768, 20)}
sessions = session_factory(create_engine())
"""
LOAD_ROWS = (
    LOAD
    + """
with sessions() as session:
    columns = {"id": np.arange(1, ROWS + 1), "client_id": np.ones(ROWS, int), "text_field": ["a"] * ROWS, **stored}
    assert copy_rows(session, TextSummary, columns) == ROWS
    session.commit()
    session.connection(execution_options={"isolation_level": "AUTOCOMMIT"}).execute(text("ANALYZE text_summary"))
"""
)
SEARCH = (
    LOAD
    + """
recalls, settings, counts, statements = {}, {}, {}, []
with sessions() as session:
    event.listen(session.connection().engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    for name, setting in (("embedding", "ivfflat.probes"), ("embedding_768", "hnsw.ef_search")):
        search(session, queries[name][0], embedding=name)
        settings[name] = session.scalar(text(f"SELECT current_setting('{setting}')"))
        found = []
        for query in queries[name]:
            exact = set((np.argsort(-(stored[name] @ query))[:10] + 1).tolist())
            statements.clear()
            matches = search(session, query, embedding=name)
            counts[name] = len(statements)
            assert len(matches) == 10
            found.append(len(exact & {match.row.id for match in matches}) / 10)
        recalls[name] = sum(found) / len(found)
        exact = [match.row.id for match in search(session, queries[name][0], embedding=name, recall=1)]
        assert exact == (np.argsort(-(stored[name] @ queries[name][0]))[:10] + 1).tolist()
        session.commit()
    session.rollback()
    statement = nearest(queries["embedding_768"][1], embedding="embedding_768", client_id=1, limit=3)
    near = [row.id for row in session.scalars(statement)]
    assert near[0] == int(np.argmax(stored["embedding_768"] @ queries["embedding_768"][1])) + 1
    default = [match.row.id for match in search(session, queries["embedding"][0])]
    assert default == [match.row.id for match in search(session, queries["embedding"][0], embedding="embedding")]
print(json.dumps({"recalls": recalls, "settings": settings, "counts": counts}))
"""
)


def add_embedding(checkout: Checkout, column: str = "embedding_768", dimensions: int = 768) -> None:
    """Declare another embedding, with an hnsw index and the storage of the first one."""
    names: dict[str, Any] = {"column": column, "dimensions": dimensions, "index": f"idx_text_summary_{column}"}
    checkout.change_model("text_summary", LAST_INDEX, INDEX.format(**names) + LAST_INDEX)
    checkout.change_model("text_summary", SOURCE, COLUMN.format(**names) + SOURCE)
    checkout.change_model("text_summary", LISTENER, LISTENER + STORAGE.format(**names))


def evolved_checkout(folder: Path, server: Server) -> Checkout:
    """Return a checkout with the column `embedding_768`, its revision and its manifest."""
    checkout = Checkout(folder, "tests", "pyproject.toml", "CHANGELOG.md", "Makefile")
    add_embedding(checkout)
    assert checkout.write_revision(server, NAME) == (0, "")
    checkout.write_manifests(server)
    return checkout


def run_program(checkout: Checkout, program: str, database: Database) -> subprocess.CompletedProcess[str]:
    """Run the text of a Python program with the package of the checkout."""
    (checkout.folder / "program.py").write_text(program, encoding="utf-8")
    return checkout.run("program", database=database)
