"""What the tests of bulk loads share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bulk.examples import session_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from servers import Database


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with session_on(database) as session:
        yield session
