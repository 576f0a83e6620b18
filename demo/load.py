"""Load the rows of the demo from the files of this directory; a second load replaces the first.

Only these rows belong to the demo, and no other row is changed: data sources of demo clients with the type `demo`; rows
of these data sources; clusters of demo clients with the mark in `features_json`; trends of demo sectors with the mark
in `metadata`.
"""

from __future__ import annotations

import csv
import json
import struct
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from sqlalchemy import delete, exists, func, select

from syntegra_db.errors import SyntegraDBError
from syntegra_db.models import (
    EMBEDDING_DIMENSIONS,
    AnomalyLog,
    AnomalySeverity,
    Base,
    Cluster,
    DataSource,
    KpiSummary,
    ProcessedData,
    TextSummary,
    TrendSignal,
    TrendStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

DIRECTORY = Path(__file__).resolve().parent

SOURCE_TYPE = "demo"
MARK = {"demo": True}

SourceChild: TypeAlias = ProcessedData | KpiSummary | TextSummary | AnomalyLog
SOURCE_CHILDREN: tuple[type[SourceChild], ...] = (ProcessedData, KpiSummary, TextSummary, AnomalyLog)
CLIENT_TABLES: tuple[type[DataSource | Cluster | SourceChild], ...] = (*SOURCE_CHILDREN, Cluster, DataSource)


class Sector(StrEnum):
    """The sectors of the demo, as named in the files; client 1 belongs to the first sector, and so on."""

    RESTAURANT = "restaurant"
    RETAIL = "retail"
    SERVICE = "service"


class ClientIdsTaken(SyntegraDBError):
    """A client id of the demo has rows that do not belong to the demo, or whose data source was deleted."""


@dataclass(frozen=True)
class Loaded:
    """The result of a load: the number of rows by table, and the ids of the texts in the order of texts.csv."""

    rows: dict[str, int]
    text_ids: list[int]


def client_id(number: int) -> int:
    """Return the id in the database of client `number` (1 to 3) of the files.

    It is negative, so it differs from the ids that an application takes from a sequence.
    """
    return -number


def sector_name(sector: Sector) -> str:
    """Return the name in the database of a sector of the files; it differs from the sectors of services."""
    return f"demo-{sector}"


CLIENT_IDS = [client_id(number) for number, _ in enumerate(Sector, start=1)]
SECTOR_NAMES = [sector_name(sector) for sector in Sector]


def load(session: Session) -> Loaded:
    """Replace the rows of the demo in the transaction of `session`; the caller commits.

    Raises:
        ClientIdsTaken: a demo client has rows that do not belong to the demo; roll back.
    """
    # Without the lock, two concurrent loads would both delete, then both insert.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("syntegra_db demo", 0))))
    delete_demo(session)
    _require_free_clients(session)
    rows = list(_rows())
    session.add_all(rows)
    session.flush()
    return Loaded(
        rows=dict(Counter(row.__tablename__ for row in rows)),
        text_ids=[row.id for row in rows if isinstance(row, TextSummary)],
    )


def delete_demo(session: Session) -> None:
    """Delete the rows of the demo, and no other rows."""
    is_demo_source = DataSource.client_id.in_(CLIENT_IDS) & (DataSource.type == SOURCE_TYPE)
    for model in SOURCE_CHILDREN:
        session.execute(delete(model).where(model.source_id.in_(select(DataSource.id).where(is_demo_source))))
    session.execute(delete(DataSource).where(is_demo_source))
    session.execute(delete(Cluster).where(Cluster.client_id.in_(CLIENT_IDS), Cluster.features_json.contains(MARK)))
    session.execute(
        delete(TrendSignal).where(TrendSignal.sector.in_(SECTOR_NAMES), TrendSignal.metadata_.contains(MARK))
    )


def _require_free_clients(session: Session) -> None:
    for model in CLIENT_TABLES:
        if session.scalar(select(exists().where(model.client_id.in_(CLIENT_IDS)))):
            raise ClientIdsTaken(
                f"{model.__tablename__} has rows of the demo clients ({', '.join(map(str, CLIENT_IDS))}) that do not "
                "belong to the demo. Nothing was changed. Delete them, or run the demo on another database."
            )


def read_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of `<name>.csv` as dicts of strings."""
    with (DIRECTORY / f"{name}.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def read_embeddings() -> list[tuple[float, ...]]:
    """Return the embeddings, of unit length; number i is the embedding of text i of texts.csv.

    They are read without NumPy, which `make migrate` does not install: a header, whose length is at byte 8, and the
    half-precision numbers of one text after another.
    """
    content = (DIRECTORY / "embeddings.npy").read_bytes()
    header_length = int.from_bytes(content[8:10], "little")
    return list(struct.iter_unpack(f"<{EMBEDDING_DIMENSIONS}e", content[10 + header_length :]))


def _rows() -> Iterator[Base]:
    sources = {
        str(number): DataSource(client_id=client_id(number), name=f"Demo of a {sector} business", type=SOURCE_TYPE)
        for number, sector in enumerate(Sector, start=1)
    }
    yield from sources.values()
    kpis = read_rows("kpis")
    yield from _monthly_records(kpis, sources)
    yield from (_kpi(row, sources[row["client_id"]]) for row in kpis)
    for row, embedding in zip(read_rows("texts"), read_embeddings(), strict=True):
        yield _text(row, embedding, sources[row["client_id"]])
    yield from map(_trend, read_rows("trends"))
    yield from map(_cluster, read_rows("clusters"))
    yield from (_anomaly(row, sources[row["client_id"]]) for row in read_rows("anomalies"))


def _monthly_records(kpis: list[dict[str, str]], sources: dict[str, DataSource]) -> Iterator[ProcessedData]:
    """Yield one normalised record per client and month, with the KPIs of that month in their units."""

    def month(row: dict[str, str]) -> tuple[str, str]:
        return row["client_id"], row["period_start"]

    for (client, start), rows in groupby(sorted(kpis, key=month), key=month):
        source = sources[client]
        yield ProcessedData(
            client_id=source.client_id,
            source=source,
            source_type=list(Sector)[int(client) - 1],
            data={"period_start": start, **{row["kpi_name"]: float(row["kpi_value"]) for row in rows}},
        )


def _kpi(row: dict[str, str], source: DataSource) -> KpiSummary:
    return KpiSummary(
        client_id=source.client_id,
        source=source,
        kpi_name=row["kpi_name"],
        kpi_value=Decimal(row["kpi_value"]),
        period_start=datetime.fromisoformat(row["period_start"]),
        period_end=datetime.fromisoformat(row["period_end"]),
        metadata_={"unit": row["unit"]},
    )


def _text(row: dict[str, str], embedding: tuple[float, ...], source: DataSource) -> TextSummary:
    return TextSummary(
        client_id=source.client_id,
        source=source,
        text_field=row["text_field"],
        sentiment=row["sentiment"],
        sentiment_score=float(row["sentiment_score"]),
        keywords=row["keywords"].split(";"),
        embedding=embedding,
        language=row["language"],
        created_at=datetime.fromisoformat(row["created_at"]),
    )


def _trend(row: dict[str, str]) -> TrendSignal:
    return TrendSignal(
        sector=sector_name(Sector(row["sector"])),
        term=row["term"],
        period_start=datetime.fromisoformat(row["period_start"]),
        period_end=datetime.fromisoformat(row["period_end"]),
        frequency=int(row["frequency"]),
        delta_pct=float(row["delta_pct"]),
        status=TrendStatus(row["status"]),
        metadata_=MARK,
    )


def _cluster(row: dict[str, str]) -> Cluster:
    return Cluster(
        client_id=client_id(int(row["client_id"])),
        cluster_id=int(row["cluster_id"]),
        cluster_name=row["cluster_name"],
        features_json={**json.loads(row["features_json"]), **MARK},
        centroid=json.loads(row["centroid"]),
        distance_to_centroid=float(row["distance_to_centroid"]),
        silhouette_score=float(row["silhouette_score"]),
    )


def _anomaly(row: dict[str, str], source: DataSource) -> AnomalyLog:
    return AnomalyLog(
        client_id=source.client_id,
        source=source,
        kpi_name=row["kpi_name"],
        detected_at=datetime.fromisoformat(row["detected_at"]),
        value=Decimal(row["value"]),
        expected_value=Decimal(row["expected_value"]),
        deviation=float(row["deviation"]),
        reason=row["reason"],
        severity=AnomalySeverity(row["severity"]),
        method=row["method"],
    )
