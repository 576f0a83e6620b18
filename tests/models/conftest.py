"""Sessions for the tests of the models."""

from __future__ import annotations

from support.sessions import run, session

__all__ = ["run", "session"]
