"""What Alembic runs for each of its commands: everything it does is in syntegra_db.migrations.run_env."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import context

from syntegra_db.migrations import run_env

if TYPE_CHECKING:
    from sqlalchemy import MetaData


def models_metadata() -> MetaData:
    """Return what `alembic check` and `alembic revision --autogenerate` compare the database with."""
    from syntegra_db.models import Base

    return Base.metadata


run_env(context, models_metadata)
