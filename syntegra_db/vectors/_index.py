"""The installed vector index and its calibration, which is stored in the index's comment."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from syntegra_db.pgvector_support import (
    COSINE_OPERATOR_CLASSES,
    ITERATIVE_SCAN_PGVECTOR,
    parse_version,
)
from syntegra_db.search_path import table_name
from syntegra_db.sql import catalog_query

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syntegra_db.models.embeddings import EmbeddingColumn, Method

# Recall is measured among this many nearest rows. The second depth represents a search with a filter that 10 % of the
# rows pass: the 10 nearest of these rows are about 10 % of the 100 nearest of all rows.
RECALL_DEPTHS = (10, 100)
# pgvector's default number of lists, and its maximum of hnsw.ef_search.
DEFAULT_LISTS = 100
MAX_EF_SEARCH = 1000
MAX_PROBES = 32_768
# The condition that an index is on a column, or on an expression of it.
IS_ON_COLUMN = """EXISTS (
        SELECT FROM pg_depend JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
        WHERE classid = 'pg_class'::regclass AND objid = indexrelid AND refclassid = 'pg_class'::regclass
          AND refobjid = indrelid AND attname = :column
      )"""
INDEXES = catalog_query(f"""
    SELECT pg_class.oid::bigint AS oid, pg_class.relname AS name, amname AS method, opcname AS operator_class,
           pg_class.relfilenode::bigint AS filenode, tables.relfilenode::bigint AS table_filenode,
           (SELECT option_value::int FROM pg_options_to_table(pg_class.reloptions)
            WHERE option_name = 'lists') AS lists,
           obj_description(pg_class.oid, 'pg_class') AS comment,
           extversion AS extension_version, nspname AS extension_schema
    FROM pg_index
    JOIN pg_class ON pg_class.oid = indexrelid
    JOIN pg_class AS tables ON tables.oid = indrelid
    JOIN pg_am ON pg_am.oid = pg_class.relam
    JOIN pg_opclass ON pg_opclass.oid = indclass[0]
    JOIN pg_extension ON extname = 'vector'
    JOIN pg_namespace ON pg_namespace.oid = extnamespace
    WHERE indrelid = to_regclass(:table) AND indisvalid AND amname = ANY (:methods)
      AND opcname = ANY (:operator_classes) AND pg_class.relname = ANY (:names)
      AND {IS_ON_COLUMN}
    ORDER BY pg_class.relname <> :index, pg_class.relname
""")  # noqa: S608  a constant
# PostgreSQL does not store how many rows an index was built on. It stores the transaction that created the index (the
# same as the primary key's if both were created with the empty table) and a file number that changes with each rewrite.
INDEX_BUILD = catalog_query("""
    SELECT vector.xmin::text <> primary_key.xmin::text,
           pg_relation_filenode(indexes.oid) <> indexes.oid, pg_relation_filenode(tables.oid) <> tables.oid
    FROM pg_index AS vector
    JOIN pg_class AS indexes ON indexes.oid = vector.indexrelid
    JOIN pg_class AS tables ON tables.oid = vector.indrelid
    JOIN pg_index AS primary_key ON primary_key.indrelid = vector.indrelid AND primary_key.indisprimary
    WHERE indexes.oid = to_regclass(:index)
""")

SETTING_NAMES: dict[Method, str] = {"ivfflat": "ivfflat.probes", "hnsw": "hnsw.ef_search"}
"""The setting of pgvector that a search changes, by the method of the index."""
MAX_SETTINGS: dict[Method, int] = {"ivfflat": MAX_PROBES, "hnsw": MAX_EF_SEARCH}


@dataclass(frozen=True)
class CalibrationPoint:
    """Recall and latency with one value of `ivfflat.probes` or `hnsw.ef_search`.

    `recall` has one share, 0 to 1, for each of `RECALL_DEPTHS`. `milliseconds` is the median of a search for ten rows.
    """

    setting: int
    recall: tuple[float, ...]
    milliseconds: float


@dataclass(frozen=True)
class Calibration:
    """The measurements of an index that a rebuild made.

    `rows` is the number of embeddings that the index was built on, `recall` the recall requested of the rebuild.
    `filenode` identifies the file of the index, which REINDEX replaces, `table_filenode` that of its table.
    `exact_milliseconds` is the median of an exact search. `points` are in ascending order of the setting.
    """

    rows: int
    filenode: int
    table_filenode: int
    recall: float
    exact_milliseconds: float
    points: tuple[CalibrationPoint, ...]

    def to_comment(self) -> str:
        """Return this calibration as the text of the index's comment."""
        return json.dumps({"syntegra_db": asdict(self)})

    @classmethod
    def from_comment(cls, comment: str | None, method: Method) -> Calibration | None:
        """Return the calibration that a comment contains, or None if a rebuild did not write the comment."""
        try:
            stored = json.loads(comment or "")["syntegra_db"]
            calibration = cls(
                rows=int(stored["rows"]),
                filenode=int(stored["filenode"]),
                table_filenode=int(stored["table_filenode"]),
                recall=float(stored["recall"]),
                exact_milliseconds=float(stored["exact_milliseconds"]),
                points=tuple(map(_point, stored["points"])),
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        return calibration if calibration._is_possible(MAX_SETTINGS[method]) else None

    def _is_possible(self, max_setting: int) -> bool:
        """Return whether a rebuild can have measured this; a search would fail with other values."""
        return (
            self.rows > 0
            and 0 < self.exact_milliseconds < inf
            and 0 <= self.recall <= 1
            and all(
                1 <= point.setting <= max_setting
                and 0 < point.milliseconds < inf
                and all(0 <= share <= 1 for share in point.recall)
                for point in self.points
            )
        )


@dataclass(frozen=True)
class VectorIndex:
    """A valid index on the embeddings by cosine distance, with one of its `index_names`.

    `lists` is 0 for hnsw. `is_half` is true for an index in half precision. `has_iterative_scans` is true if this
    pgvector continues a scan when a filter has left too few rows. `extension_schema` is the
    schema of pgvector. `calibration` is None if no rebuild stored one.
    """

    embedding: EmbeddingColumn
    oid: int
    name: str
    filenode: int
    table_filenode: int
    method: Method
    lists: int
    is_half: bool
    has_iterative_scans: bool
    extension_schema: str
    calibration: Calibration | None

    @property
    def current_calibration(self) -> Calibration | None:
        """The calibration, or None if it is of an index that REINDEX rebuilt later."""
        is_current = self.calibration is not None and self.calibration.filenode == self.filenode
        return self.calibration if is_current else None

    @property
    def is_calibration_current(self) -> bool:
        """Whether the index is still the calibrated one."""
        return self.current_calibration is not None

    @property
    def was_rewritten_with_table(self) -> bool:
        """Whether index and table were both rewritten after the calibration, perhaps while the table was empty.

        TRUNCATE does that; VACUUM FULL and CLUSTER do it too, and the catalog does not tell them apart. After CREATE
        INDEX, as in a restore, the filenode of the index is its oid.
        """
        if self.calibration is None or self.is_calibration_current or self.filenode == self.oid:
            return False
        return self.calibration.table_filenode != self.table_filenode

    @property
    def rows_at_build(self) -> int | None:
        """The number of embeddings that the index was built on, or None if the last build was not a rebuild."""
        return self.current_calibration.rows if self.current_calibration else None


def read_indexes(connection: Connection, embedding: EmbeddingColumn) -> tuple[VectorIndex, ...]:
    """Return the valid indexes that searches may use: the primary index first, then those of a rebuild."""
    rows = connection.execute(
        INDEXES,
        {
            "table": table_name(connection, embedding.table),
            "column": embedding.name,
            "index": embedding.index,
            "names": [*embedding.index_names],
            "methods": [*SETTING_NAMES],
            "operator_classes": [*COSINE_OPERATOR_CLASSES],
        },
    )
    return tuple(
        VectorIndex(
            embedding=embedding,
            oid=row["oid"],
            name=row["name"],
            filenode=row["filenode"],
            table_filenode=row["table_filenode"],
            method=row["method"],
            lists=(row["lists"] or DEFAULT_LISTS) if row["method"] == "ivfflat" else 0,
            is_half=COSINE_OPERATOR_CLASSES[row["operator_class"]],
            has_iterative_scans=parse_version(row["extension_version"]) >= ITERATIVE_SCAN_PGVECTOR,
            extension_schema=row["extension_schema"],
            calibration=Calibration.from_comment(row["comment"], row["method"]),
        )
        for row in rows.mappings()
    )


def read_primary_index(connection: Connection, embedding: EmbeddingColumn) -> VectorIndex | None:
    """Return the valid index of the declared name, or None if it does not exist."""
    return next((index for index in read_indexes(connection, embedding) if index.name == embedding.index), None)


def was_built_on_data(connection: Connection, embedding: EmbeddingColumn) -> bool | None:
    """Return whether the vector index was built after its table was created, and so perhaps on rows.

    False: it was created with the empty table. None: there is no index, or the catalog cannot tell, because TRUNCATE
    or VACUUM FULL rewrote both.
    """
    build = connection.execute(INDEX_BUILD, {"index": table_name(connection, embedding.index)}).first()
    if build is None:
        return None
    created_later, index_rewritten, table_rewritten = build
    if table_rewritten and not created_later:
        return None
    return bool(created_later or index_rewritten)


def _point(stored: dict[str, Any]) -> CalibrationPoint:
    near, deep = stored["recall"]
    return CalibrationPoint(int(stored["setting"]), (float(near), float(deep)), float(stored["milliseconds"]))
