"""Read timestamps that Python cannot represent, such as infinity, as the nearest datetime.

Others may store them. psycopg raises an error, so one such row would break every query that meets it.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg.adapt import Loader
from psycopg.pq import Format
from sqlalchemy import event

if TYPE_CHECKING:
    from psycopg.abc import Buffer
    from sqlalchemy import Engine
    from sqlalchemy.pool import ConnectionPoolEntry

EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
# The time 0 of PostgreSQL's binary format.
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
# The calendar repeats after 400 years.
CALENDAR_CYCLE = timedelta(days=146_097)


class _TextLoader(Loader):
    """Loader that calls psycopg's loader, which is in C and cannot be derived from."""

    def __init__(self, oid: int, context: Any = None) -> None:
        super().__init__(oid, context)
        self._load = cast("type[Loader]", psycopg.adapters.get_loader(oid, self.format))(oid, context).load

    def load(self, data: Buffer) -> Any:
        try:
            return self._load(data)
        except psycopg.DataError:
            return self._nearest(bytes(data))

    def _nearest(self, text: bytes) -> datetime:
        is_early = text.startswith(b"-") or text.endswith(b"BC")
        # The session's time zone may move a timestamp to the year 10000 or 1 BC.
        with suppress(OverflowError):
            if text.startswith(b"10000-"):
                timestamp: datetime = self._load(b"9600" + text[5:])
                return timestamp.astimezone(UTC) + CALENDAR_CYCLE
            if text.startswith(b"0001-"):
                timestamp = self._load(b"0400" + text[4:].removesuffix(b" BC"))
                return timestamp.astimezone(UTC) - CALENDAR_CYCLE
        return EARLIEST if is_early else LATEST


class _BinaryLoader(_TextLoader):
    format = Format.BINARY

    def _nearest(self, data: bytes) -> datetime:
        microseconds = int.from_bytes(data, "big", signed=True)
        with suppress(OverflowError):
            return EPOCH + timedelta(microseconds=microseconds)
        return EARLIEST if microseconds < 0 else LATEST


def load_nearest_timestamps(engine: Engine) -> None:
    """Read timestamps beyond Python's range as `EARLIEST` or `LATEST` on the connections that `engine` opens."""
    event.listen(engine, "connect", _register)


def _register(_connection: Any, record: ConnectionPoolEntry) -> None:
    adapters: Any = record.driver_connection.adapters  # type: ignore[union-attr]  # connected, as the event says
    for loader in (_TextLoader, _BinaryLoader):
        adapters.register_loader("timestamptz", loader)
