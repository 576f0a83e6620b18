"""A checkout whose `TextSummary` has a second embedding, with the revision that `make revision` writes for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
