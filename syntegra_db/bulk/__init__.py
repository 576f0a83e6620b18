"""Bulk loads: binary COPY into the models' tables, and upserts by a key, in the session's own transaction.

`copy_rows` and `upsert_rows`, and their asyncio versions `async_copy_rows` and `async_upsert_rows`, accept as `rows`

- an iterable of mappings from attribute to value, all with the keys of the first one;
- an iterable of tuples or lists in the order of `columns`: by default all columns of the model except `id`. Named
  tuples and SQLAlchemy's `Row` are matched by the names of the first one, unless `columns` is given;
- an iterable of instances of the model. They are read, not added to the session, and get no values from the server;
- one mapping from attribute to a NumPy array or list, all of the same length; embeddings have the shape (rows,
  dimensions);
- one NumPy structured array, or an iterable of them;
- one pyarrow Table or RecordBatch, or an iterable of RecordBatches, such as a reader; embeddings are lists of floats.

The asyncio versions accept asynchronous iterables too. A column is named by its attribute or by its own name:
`metadata_` or `metadata`. A column that the rows do not have gets the server's default; an `id` in the rows does not
advance its sequence. A row with other columns than the first one is rejected, so no value is lost or becomes NULL.

A value is stored exactly, or rejected: no number is rounded, no text is cut. The exceptions: embeddings become single
precision, a tuple in a JSON column becomes a list, NumPy's datetime64 counts as UTC, and nanoseconds in a batch are
truncated to microseconds. A float in a NUMERIC column becomes the shortest decimal number that is read as the same
float. A datetime without a time zone is rejected, because the server would interpret it in the session's time zone. In
a JSON column a string becomes a JSON string, None becomes NULL, SQLAlchemy's `JSON.NULL` becomes a JSON null, and NaN
and keys that are not strings are rejected.

Rows are read one at a time, or one batch at a time, and not kept. The code that yields them, and `on_progress`, cannot
use the session during the load: streaming a query, or a lookup for each row, needs a separate session.

Where row-level security is active for the role, PostgreSQL refuses COPY: the rows are copied into a temporary table,
and an INSERT writes them into the table. `copy_rows` does so in blocks of 128 kB to 4 MB, and reads the rows of the
next block while the server writes one. A table with a trigger on INSERT, or with a foreign key to itself, gets one
INSERT of all rows. The rows are stored in the same order, and the errors are the same. A row that the policies refuse
is a `RowRejected` with the SQLSTATE 42501. Such a load needs a transaction, and the privileges TEMPORARY on the
database and SELECT on the table. A role without the privilege INSERT on a column, such as a service on `id`, leaves it
out of the rows.

The load is part of the session's transaction: pending objects are flushed first, and a rollback removes the rows. After
an error the transaction must be rolled back; `with session.begin_nested():` around the call keeps earlier changes.
"""

from syntegra_db.bulk._api import async_copy_rows, async_upsert_rows, copy_rows, upsert_rows
from syntegra_db.errors import BulkLoadError, BulkLockTimeout, RowRejected

__all__ = [
    "BulkLoadError",
    "BulkLockTimeout",
    "RowRejected",
    "async_copy_rows",
    "async_upsert_rows",
    "copy_rows",
    "upsert_rows",
]
