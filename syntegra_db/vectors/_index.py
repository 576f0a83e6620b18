"""The vector index as it stands in the database, and what was measured of it, which is kept with it as its comment."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import text

from syntegra_db.pgvector_support import (
    COSINE_OPERATOR_CLASSES,
    ITERATIVE_SCAN_PGVECTOR,
    VECTOR_INDEX,
    parse_version,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

# While a rebuild builds beside the index, and until the one that was is dropped.
NEW_INDEX = f"{VECTOR_INDEX}_new"
OLD_INDEX = f"{VECTOR_INDEX}_old"
INDEX_NAMES = (VECTOR_INDEX, NEW_INDEX, OLD_INDEX)
# The recall of a search is measured among so many nearest rows. The deeper one stands for a filter that leaves a
# tenth of the rows: the ten nearest of those are about a tenth of the hundred nearest of all.
RECALL_DEPTHS = (10, 100)
# pgvector's own, where an index names none, and its bounds of hnsw.ef_search.
DEFAULT_LISTS = 100
MAX_EF_SEARCH = 1000
INDEXES = text("""
    SELECT pg_class.oid::bigint AS oid, pg_class.relname AS name, amname AS method, opcname AS operator_class,
           pg_class.relfilenode::bigint AS filenode, tables.relfilenode::bigint AS table_filenode,
           (SELECT option_value::int FROM pg_options_to_table(pg_class.reloptions)
            WHERE option_name = 'lists') AS lists,
           obj_description(pg_class.oid, 'pg_class') AS comment,
           (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS extension_version
    FROM pg_index
    JOIN pg_class ON pg_class.oid = indexrelid
    JOIN pg_class AS tables ON tables.oid = indrelid
    JOIN pg_am ON pg_am.oid = pg_class.relam
    JOIN pg_opclass ON pg_opclass.oid = indclass[0]
    WHERE indrelid = to_regclass('text_summary') AND indisvalid AND amname = ANY (:methods)
      AND opcname = ANY (:operator_classes) AND pg_class.relname = ANY (:names)
    ORDER BY pg_class.relname <> :index, pg_class.relname
""")
# PostgreSQL does not store how many rows an index was built on. It stores the transaction that created the index (the
# same as the primary key's if both were created with the empty table) and a file number that changes with each rewrite.
INDEX_BUILD = text("""
    SELECT vector.xmin::text <> primary_key.xmin::text,
           pg_relation_filenode(indexes.oid) <> indexes.oid, pg_relation_filenode(tables.oid) <> tables.oid
    FROM pg_index AS vector
    JOIN pg_class AS indexes ON indexes.oid = vector.indexrelid
    JOIN pg_class AS tables ON tables.oid = vector.indrelid
    JOIN pg_index AS primary_key ON primary_key.indrelid = vector.indrelid AND primary_key.indisprimary
    WHERE indexes.relname = :index AND indexes.relnamespace = to_regnamespace(quote_ident(current_schema()))
""")

Method = Literal["ivfflat", "hnsw"]
SETTING_NAMES: dict[Method, str] = {"ivfflat": "ivfflat.probes", "hnsw": "hnsw.ef_search"}


@dataclass(frozen=True)
class CalibrationPoint:
    """What one value of `ivfflat.probes` or `hnsw.ef_search` gave.

    `recall` is the share of the true nearest rows that were found, 0 to 1, one for each of `RECALL_DEPTHS`;
    `milliseconds` is the median of a search for ten rows.
    """

    setting: int
    recall: tuple[float, ...]
    milliseconds: float


@dataclass(frozen=True)
class Calibration:
    """What a rebuild has measured of the index that it built.

    `rows` is how many embeddings the index was built on, `recall` what was asked for, `filenode` the file of the
    index, another one after a REINDEX, and `table_filenode` that of its table. `time_exact_search` is the median of a
    search that reads every row. `measured` is in ascending order of the setting.
    """

    rows: int
    filenode: int
    table_filenode: int
    recall: float
    exact_milliseconds: float
    measured: tuple[CalibrationPoint, ...]

    def to_comment(self) -> str:
        """Return this as the text of the index's comment."""
        return json.dumps({"syntegra_db": asdict(self)}, separators=(", ", ": "))

    @classmethod
    def from_comment(cls, comment: str | None) -> Calibration | None:
        """Return what a comment says, or None when it is no comment of a rebuild."""
        try:
            told = json.loads(comment or "")["syntegra_db"]
            return cls(
                rows=int(told["rows"]),
                filenode=int(told["filenode"]),
                table_filenode=int(told["table_filenode"]),
                recall=float(told["recall"]),
                exact_milliseconds=float(told["exact_milliseconds"]),
                measured=tuple(map(_measurement, told["measured"])),
            )
        except (ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True)
class VectorIndex:
    """A valid index on the embeddings by cosine distance, of the real name or of one that a rebuild gives.

    `lists` is 0 for hnsw. `is_half` says that it holds the numbers in half precision, `has_iterative_scans` that this
    pgvector goes on scanning where a filter has left too few rows. `tuning` is None when no rebuild has left its
    measurements with the index.
    """

    oid: int
    name: str
    filenode: int
    table_filenode: int
    method: Method
    lists: int
    is_half: bool
    has_iterative_scans: bool
    tuning: Calibration | None

    @property
    def is_calibration_current(self) -> bool:
        """Whether the index is still the one that was measured, rather than made anew by REINDEX."""
        return self.tuning is not None and self.tuning.filenode == self.filenode

    @property
    def was_rewritten_with_table(self) -> bool:
        """Whether both index and table were written anew since the index was measured, perhaps when there was no row.

        TRUNCATE does that, VACUUM FULL and CLUSTER too, and nothing tells them apart. An index that was made by CREATE
        INDEX since, as a restore does, has its own oid for a filenode.
        """
        if self.tuning is None or self.is_calibration_current or self.filenode == self.oid:
            return False
        return self.tuning.table_filenode != self.table_filenode

    @property
    def rows_at_build(self) -> int | None:
        """How many embeddings the index was built on, or None where a rebuild was not the last to build it."""
        return self.tuning.rows if self.tuning is not None and self.is_calibration_current else None


def read_indexes(connection: Connection) -> tuple[VectorIndex, ...]:
    """Return the indexes that find embeddings by cosine distance: that of the real name first, then those of a rebuild.

    Valid ones alone, which the planner may take.
    """
    rows = connection.execute(
        INDEXES,
        {
            "index": VECTOR_INDEX,
            "names": [*INDEX_NAMES],
            "methods": [*SETTING_NAMES],
            "operator_classes": [*COSINE_OPERATOR_CLASSES],
        },
    )
    return tuple(
        VectorIndex(
            oid=row["oid"],
            name=row["name"],
            filenode=row["filenode"],
            table_filenode=row["table_filenode"],
            method=row["method"],
            lists=(row["lists"] or DEFAULT_LISTS) if row["method"] == "ivfflat" else 0,
            is_half=COSINE_OPERATOR_CLASSES[row["operator_class"]],
            has_iterative_scans=parse_version(row["extension_version"]) >= ITERATIVE_SCAN_PGVECTOR,
            tuning=Calibration.from_comment(row["comment"]),
        )
        for row in rows.mappings()
    )


def read_primary_index(connection: Connection) -> VectorIndex | None:
    """Return the one of them that has the real name, or None when there is none."""
    return next((index for index in read_indexes(connection) if index.name == VECTOR_INDEX), None)


def was_built_on_data(connection: Connection) -> bool | None:
    """Return whether the vector index was built after its table was created, and so perhaps on rows.

    False: it was created with the empty table. None: there is no index, or the catalog cannot tell, because TRUNCATE
    or VACUUM FULL rewrote both.
    """
    build = connection.execute(INDEX_BUILD, {"index": VECTOR_INDEX}).first()
    if build is None:
        return None
    created_later, index_rewritten, table_rewritten = build
    if table_rewritten and not created_later:
        return None
    return bool(created_later or index_rewritten)


def _measurement(told: dict[str, Any]) -> CalibrationPoint:
    near, deep = told["recall"]
    return CalibrationPoint(int(told["setting"]), (float(near), float(deep)), float(told["milliseconds"]))
