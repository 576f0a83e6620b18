"""Whether each committed state of a database protects what the group roles may read."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from support.processes import in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database

# Tables with rows of clients that a group role may read, without all policies or with row-level security off.
BARE_TABLES = """
    SELECT relname::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname <> 'bound_logins' AND EXISTS (
      SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'client_id' AND NOT attisdropped
    ) AND EXISTS (
      SELECT FROM aclexplode(relacl) JOIN pg_roles ON pg_roles.oid = grantee WHERE rolname LIKE 'syntegra\\_%'
    ) AND NOT (relrowsecurity AND 6 = (SELECT count(*) FROM pg_policy WHERE polrelid = pg_class.oid))
"""
PROTECTED_TABLES = """
    SELECT relname::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relrowsecurity AND NOT relispartition
      AND 6 = (SELECT count(*) FROM pg_policy WHERE polrelid = pg_class.oid)
      AND has_table_privilege('syntegra_service', pg_class.oid, 'SELECT') ORDER BY relname
"""


@contextmanager
def never_bare(database: Database) -> Iterator[None]:
    """Look at every moment of the block, in another session, for a table that is granted without policies."""
    ended, bare, looks = threading.Event(), set[str](), [0]

    def look() -> None:
        with database.connect() as connection:
            while not ended.is_set():
                bare.update(row[0] for row in connection.execute(BARE_TABLES))
                looks[0] += 1

    with in_thread(look):
        try:
            yield
        finally:
            ended.set()
    assert looks[0] > 1
    assert not bare
