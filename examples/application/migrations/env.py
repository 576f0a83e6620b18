"""Alembic's environment of the application: its own revisions, next to those of syntegra_db in the same database."""

from __future__ import annotations

from alembic import context

from application.models import Base
from syntegra_db.database import create_engine
from syntegra_db.migrations import include_name, include_object

# syntegra_db records its revision in the table alembic_version; two histories cannot share it.
VERSION_TABLE = "application_version"

engine = create_engine(application_name="example application migration")
with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        include_name=include_name,
        include_object=include_object,
    )
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
