"""Rows in bulk: binary COPY into the models' tables, and the same by a key, in the session's own transaction.

`copy_rows` and `upsert_rows`, and for asyncio `async_copy_rows` and `async_upsert_rows`, take as `rows` any of

- an iterable of mappings from attribute to value. All have the keys of the first;
- an iterable of tuples or lists, in the order of `columns`: by default all columns of the model but `id`. Those with
  names of their own, such as a named tuple or SQLAlchemy's `Row`, go by the names of the first, which all have in the
  same order, unless `columns` is given;
- an iterable of instances of the model. They are read, not added to the session, and stay without the server's values;
- one mapping from attribute to a NumPy array or list, all of one length; embeddings have the shape (rows, 384);
- one NumPy structured array, or an iterable of them;
- one pyarrow Table or RecordBatch, or an iterable of RecordBatches, such as a reader; embeddings are lists of floats.

The asyncio twins take asynchronous iterables as well. A column goes by the name of its attribute or its own:
`metadata_` or `metadata`. Columns that the rows do not have get the server's default; an `id` that they have does not
move its sequence on. A row that lacks what the first has, or has more, is refused, so that nothing is dropped or
becomes NULL unseen.

Values are not converted, but for these: embeddings become single precision; NUMERIC takes floats with 15 significant
digits, as PostgreSQL's own cast does; a column of NumPy's datetime64 counts as UTC, and of nanoseconds in a batch whole
microseconds are kept. A datetime without a time zone is refused: the server would put it into whichever zone the
session has. In a JSON column a string becomes a JSON string, None becomes NULL, SQLAlchemy's `JSON.NULL` a JSON null,
and NaN is refused.

Rows are read one at a time, or a batch, and nothing is kept. What yields them, and `on_progress`, cannot use the
session meanwhile: a query whose rows are streamed, or a lookup on the way, needs a session of its own.

The transaction is the session's: rows that wait in the session are flushed first, and a rollback takes the copied rows
away. After an error the transaction has to be rolled back, as after any statement that failed; `with
session.begin_nested():` around the call keeps what was before it.
"""

from syntegra_db.bulk._api import async_copy_rows, async_upsert_rows, copy_rows, upsert_rows
from syntegra_db.bulk.errors import BulkLoadError, RowRejected

__all__ = [
    "BulkLoadError",
    "RowRejected",
    "async_copy_rows",
    "async_upsert_rows",
    "copy_rows",
    "upsert_rows",
]
