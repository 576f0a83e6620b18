"""Sessions for the tests of bulk loads."""

from __future__ import annotations

from support.sessions import run, session

__all__ = ["run", "session"]
